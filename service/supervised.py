"""A child's side of being looked after: its beats, the word to end, and what it is at."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import mmap
import os
import signal
import socket
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")
BEAT = 1.0  # seconds
END, RELOAD = b"t", b"h"  # what the parent says; `supervisor` has them too
_PDEATHSIG = 1


class Link:
    """What a child was given when it was begun. `number` counts the children from 0; `sock` is
    the listening socket, once the first has made it; `poison` are the ids of requests that
    ended children before."""

    current: ClassVar[Link | None] = None

    def __init__(
        self,
        link: socket.socket,
        at: mmap.mmap,
        number: int,
        sock: socket.socket | None,
        poison: frozenset[str],
        parent: int,
    ) -> None:
        self.number = number
        self.sock = sock
        self.poison = poison
        self._link = link
        self._at = at
        self._parent = parent
        self._end_with_parent(signal.SIGTERM)
        with contextlib.suppress(AttributeError, ValueError, OSError):
            faulthandler.register(signal.SIGUSR2, file=sys.stderr, all_threads=True)

    def announce(self, workers: int, sock: socket.socket, grace: float) -> None:
        """This one can serve, and `workers` of them are wanted in all."""
        if workers == 1:
            # Nobody else could serve on; and a lone process that is killed is dead at once.
            self._end_with_parent(signal.SIGKILL)
        if self.sock is None:
            self._link.setblocking(True)
            socket.send_fds(self._link, [f"{workers} {grace}\n".encode()], [sock.fileno()])
            self._link.setblocking(False)

    def watch(self, stop: Callable[[], None], reload: Callable[[], None] = lambda: None) -> None:
        """In the event loop: beat, and call `stop` for each time the parent was told to end, and
        `reload` when it was told to read the flows again."""
        loop = asyncio.get_running_loop()

        def beat() -> None:
            with contextlib.suppress(OSError):
                self._link.send(b".")
            loop.call_later(BEAT, beat)

        def heard() -> None:
            try:
                said = self._link.recv(64)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                loop.remove_reader(self._link.fileno())
            for word in said or END:
                (reload if word == RELOAD[0] else stop)()

        loop.add_reader(self._link.fileno(), heard)
        self._at[len(self._at) - 1] = 1
        beat()

    async def during(self, name: str, work: Coroutine[Any, Any, T]) -> T:
        """Do the work; while it has the event loop, its name is where the parent can read it."""
        mark = name.encode("utf-8", "replace")[:100]
        return await _marked(work, self._at, mark, b"\0" * len(mark))

    def _end_with_parent(self, number: int) -> None:
        """The kernel sends it, also to one that is stuck. Elsewhere than on Linux the link, which
        closes, has to do."""
        if sys.platform != "linux":
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != self._parent:  # it went before that
                os._exit(1)


@types.coroutine
def _marked(
    work: Coroutine[Any, Any, T], at: mmap.mmap, mark: bytes, blank: bytes
) -> Generator[Any, Any, T]:
    """Drives `work` as `await` would, with the mark set while it runs."""
    length = len(mark)
    sent: Any = None
    error: BaseException | None = None
    while True:
        at[:length] = mark
        try:
            asked = work.send(sent) if error is None else work.throw(error)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        finally:
            at[:length] = blank
        sent = error = None
        try:
            sent = yield asked
        except BaseException as raised:
            error = raised
