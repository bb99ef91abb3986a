"""The process that looks after `serve` from outside: it imports little and does nothing else.

Whatever holds a child's event loop up, also a C extension that never lets go of the interpreter,
the child's beats stop; then it is ended and begun anew. What the child was at when it ended like
that is remembered, so that one message does it twice at most. SIGTERM ends all, stuck or not;
SIGHUP has all of them read the flows again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import sys
import time

BOUND = 15  # looks, one a second, without a beat
AT_END = 5  # likewise, once it was asked to end
STOP = 15.0  # seconds beyond GRACE that an orderly end may take
EARLY = 5.0  # seconds; a child that lives shorter did not run
TOO_OFTEN = 5  # such ends in a row: something is wrong with all of them
POISON = 2  # ends of a child that a request may be blamed for
_ID = 128  # bytes for the id of what a child is at


class _Child:
    def __init__(self, number: int, pid: int, link: socket.socket, at: mmap.mmap) -> None:
        self.number = number
        self.pid = pid
        self.link = link
        self.at = at
        self.since = time.monotonic()
        self.beats = False  # it began to; a start may take long
        self.still = 0
        self.killed = False

    @property
    def stopped(self) -> bool:
        """By SIGSTOP, or in a debugger: that is not stuck."""
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
        return False

    def send(self, said: bytes) -> None:
        with contextlib.suppress(OSError):
            self.link.send(said)


def supervise() -> None:
    """Returns in each child; this process ends when all of them have."""
    if hasattr(os, "fork"):
        code = Supervisor().run()
        if code is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)


class Supervisor:
    """One or several children with one listening socket."""

    def __init__(self) -> None:
        self._children: list[_Child] = []
        self._sock: socket.socket | None = None  # the listening one, once the first child has it
        self._announced = False
        self._grace = 30.0
        self._signals = 0
        self._reloads = 0
        self._terminal = False
        self._stop_until = 0.0
        self._early = 0
        self._code = 0
        self._blame: dict[str, int] = {}
        self._notify = os.environ.pop("NOTIFY_SOCKET", "")
        self._watched = os.environ.pop("WATCHDOG_USEC", "")
        os.environ.pop("WATCHDOG_PID", None)

    def run(self) -> int | None:
        """The exit code; None in a child."""
        wake, ring = os.pipe()
        for fd in (wake, ring):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count)
        self._terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _terminal()
        signal.signal(signal.SIGHUP, self._hang_up)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        inner = (wake, ring)
        if self._start(0, inner):
            return None
        look = time.monotonic() + 1
        handled = 0
        while self._children:
            links = [child.link for child in self._children]
            waits: list[int | socket.socket] = [wake, *links]
            readable = select.select(waits, [], [], max(0.0, look - time.monotonic()))[0]
            if wake in readable:
                os.read(wake, 4096)
            for child in list(self._children):
                if child.link in readable and self._hear(child, inner):
                    return None
            if self._reloads:
                self._reloads = 0
                for child in self._children:
                    child.send(b"h")
            while handled < self._signals:
                handled += 1
                self._stop()
            if self._bury(inner):
                return None
            if time.monotonic() >= look:
                # One look, however long this process itself stood still.
                look = time.monotonic() + 1
                self._look()
        return self._code

    def _count(self, number: int, frame: object) -> None:
        self._signals += 1

    def _hang_up(self, number: int, frame: object) -> None:
        """The flows are to be read again; or the terminal that this was started in is gone."""
        if self._terminal and not _terminal():
            self._signals += 1
        else:
            self._reloads += 1

    # Children

    def _start(self, number: int, inner: tuple[int, int]) -> bool:
        """Whether this is the child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        at = mmap.mmap(-1, _ID)
        poison = frozenset(name for name, count in self._blame.items() if count >= POISON)
        parent = os.getpid()
        pid = os.fork()
        if pid:
            theirs.close()
            ours.setblocking(False)
            self._children.append(_Child(number, pid, ours, at))
            return False
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(each, signal.default_int_handler if each == 2 else signal.SIG_DFL)
        for fd in inner:
            os.close(fd)
        ours.close()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent passes it on
        for other in self._children:
            other.link.close()
            other.at.close()
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)  # Ctrl-C is for the parent, which passes it on
        theirs.setblocking(False)
        from service.supervised import Link  # imports what this process has no use for

        Link.current = Link(theirs, at, number, self._sock, poison, parent)
        return True

    def _hear(self, child: _Child, inner: tuple[int, int]) -> bool:
        """Its beats, and once what it is. Whether this is a child."""
        try:
            said, fds, *_ = socket.recv_fds(child.link, 4096, 4)
        except OSError:
            return False
        if not said:
            return False  # it is ending, or was never there
        child.still = 0
        if not fds:
            return False
        self._sock = socket.socket(fileno=fds[0])
        self._announced = True
        words = said.partition(b"\n")[0].split()
        self._grace = float(words[1])
        self._tell("READY=1")
        if self._signals:
            return False
        return any(self._start(number, inner) for number in range(1, int(words[0])))

    def _bury(self, inner: tuple[int, int]) -> bool:
        """Those that ended, and begin them anew. Whether this is a child."""
        for child in list(self._children):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid == 0:
                continue
            ended = os.waitstatus_to_exitcode(status)
            self._children.remove(child)
            name = bytes(child.at[: _ID - 1]).rstrip(b"\0").decode("utf-8", "replace")
            if name and not self._signals and ended not in (0, 1):
                self._blame[name] = self._blame.get(name, 0) + 1
                _say(f"it was at request {name}")
            child.at.close()
            child.link.close()
            if self._signals or not self._announced:
                asked = self._signals and -ended in (signal.SIGTERM, signal.SIGINT)
                self._code = self._code or (0 if asked else ended if ended >= 0 else 128 - ended)
                continue
            _say(f"process {child.number} (pid {pid}) ended with {ended}; starting it again")
            self._early = self._early + 1 if time.monotonic() - child.since < EARLY else 0
            if self._early >= TOO_OFTEN:
                _say("it ends as soon as it starts: giving up")
                self._code = ended if ended > 0 else 1
                self._signals += 1
                self._stop()
                continue
            if self._start(child.number, inner):
                return True
        self._reap_orphans()
        return False

    def _reap_orphans(self) -> None:
        """As process 1 of a container all that is left over becomes ours."""
        if os.getpid() != 1:
            return
        ours = {child.pid for child in self._children}
        with contextlib.suppress(OSError, ProcessLookupError):
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid in ours:
                    return
                os.waitpid(found.si_pid, os.WNOHANG)

    # Watching

    def _look(self) -> None:
        late = self._signals and time.monotonic() > self._stop_until
        bound = AT_END if self._signals else BOUND
        stuck = False
        for child in self._children:
            beats = child.at[_ID - 1] == 1
            if child.killed or (not beats and not late) or child.stopped:
                continue
            child.still += 1
            if child.still >= bound or late:
                stuck = True
                self._kill(child)
        if self._watched and self._announced and not stuck:
            self._tell("WATCHDOG=1")

    def _kill(self, child: _Child) -> None:
        why = "does not end" if self._signals else f"has stood still for {child.still} s"
        _say(f"process {child.number} (pid {child.pid}) {why}; ending it")
        child.killed = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGUSR2)  # where it hangs, in the log
            time.sleep(0.3)
            os.kill(child.pid, signal.SIGKILL)

    def _stop(self) -> None:
        self._tell("STOPPING=1")
        self._stop_until = self._stop_until or time.monotonic() + self._grace + STOP
        if self._sock is not None:
            self._sock.close()  # who has it open last answers what waits there
            self._sock = None
        for child in self._children:
            child.send(b"t")
            if child.at[_ID - 1] != 1:  # not begun: nobody reads that yet
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)

    def _tell(self, state: str) -> None:
        """systemd, where it asked for it (sd_notify)."""
        if not self._notify:
            return
        address = "\0" + self._notify[1:] if self._notify.startswith("@") else self._notify
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(state.encode(), address)


def _terminal() -> bool:
    """Whether there is one that this process belongs to."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"emqx-gpt: {text}", file=sys.stderr, flush=True)
