"""`serve --workers N`: several processes on one listening socket and one PostgreSQL."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

log = logging.getLogger("emqx-gpt.workers")

CALM = 5.0  # seconds a worker must have lived for its death to count as news
TOO_OFTEN = 5  # deaths in a row that came sooner: something is wrong with all of them


def run_workers(count: int, work: Callable[[int], int]) -> int:
    """Fork `count` workers that each run `work(number)` and keep them running.

    Returns the exit code: 0 once SIGTERM or SIGINT was passed on and all have ended well.
    Call it before any thread or event loop exists.
    """
    return _Workers(work).run(count)


class _Workers:
    def __init__(self, work: Callable[[int], int]) -> None:
        self._work = work
        self._running: dict[int, tuple[int, float]] = {}  # pid → (number, since)
        self._stopping = False
        self._early = 0
        self._ended, self._lives = os.pipe()  # nobody writes: it closes with this process

    def run(self, count: int) -> int:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        for number in range(count):
            self._start(number)
        code = 0
        while self._running:
            pid, status = os.wait()
            number, since = self._running.pop(pid, (-1, 0.0))
            if number < 0:
                continue
            ended = os.waitstatus_to_exitcode(status)
            if self._stopping:
                code = code or abs(ended)
                continue
            log.error("worker %d (pid %d) ended with %d; starting it again", number, pid, ended)
            self._early = self._early + 1 if time.monotonic() - since < CALM else 0
            if self._early >= TOO_OFTEN:
                log.critical("workers end as soon as they start: giving up")
                self._stop(signal.SIGTERM, None)
                code = 1
                continue
            self._start(number)
        return code

    def _start(self, number: int) -> None:
        pid = os.fork()
        if pid:
            self._running[pid] = (number, time.monotonic())
            return
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_DFL)
        os.close(self._lives)
        threading.Thread(target=self._end_with_parent, name="parent", daemon=True).start()
        code = 1
        try:
            code = self._work(number)
        finally:
            # Never back into the parent's code, whatever was raised.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _end_with_parent(self) -> None:
        """A worker that nobody looks after would hold the port against the next start."""
        os.read(self._ended, 1)
        log.error("the process that started this worker is gone: stopping")
        os.kill(os.getpid(), signal.SIGTERM)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
