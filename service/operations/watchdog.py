"""Ends a process whose event loop stands still: EMQX would wait for ever for its webhook.

A thread looks once a second whether the loop still turns. A process that was stopped
(SIGSTOP) and resumed is not taken for one that hangs: the thread counts its own looks,
and those stood still as well.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable

LOOKS = 30  # seconds the loop may stand still
EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h

log = logging.getLogger("emqx-gpt.watchdog")


def _end() -> None:
    # Where it hangs is what the operator needs; stack frames hold no payloads.
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    os._exit(EXIT_CODE)


class Watchdog:
    """`start` in the event loop to watch. `every` is in seconds, `end` ends the process."""

    def __init__(
        self, *, looks: int = LOOKS, every: float = 1.0, end: Callable[[], None] = _end
    ) -> None:
        self._looks = looks
        self._every = every
        self._end = end
        self._seen = True
        self._stopped = threading.Event()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._watch, args=(loop,), daemon=True, name="watchdog")
        thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        still = 0
        while not self._stopped.wait(self._every):
            if self._seen:
                still = 0
                self._seen = False
                try:
                    loop.call_soon_threadsafe(self._tick)
                except RuntimeError:
                    return  # the loop is closed
                continue
            still += 1
            if still >= self._looks:
                log.critical("the event loop stands still for %d s; ending", self._looks)
                self._end()
                return

    def _tick(self) -> None:
        self._seen = True
