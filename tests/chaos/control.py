"""What the suite changes inside a service process while it runs: its clock, its disk."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from pathlib import Path

_NUMBERS = struct.Struct("<qq")


class Control:
    """Two numbers in a mapped file: a write here is seen there at once, stopped or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(_NUMBERS.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _NUMBERS.size)

    def _set(self, at: int, value: int) -> None:
        numbers = list(_NUMBERS.unpack(self._map))
        numbers[at] = value
        self._map[:] = _NUMBERS.pack(*numbers)

    @property
    def ahead(self) -> int:
        """How far the process's clock is ahead, in ms."""
        return int(_NUMBERS.unpack(self._map)[0])

    @ahead.setter
    def ahead(self, value: int) -> None:
        self._set(0, value)

    @property
    def full(self) -> bool:
        """Whether its database may not grow."""
        return bool(_NUMBERS.unpack(self._map)[1])

    @full.setter
    def full(self, value: bool) -> None:
        self._set(1, int(value))


def end_with_parent() -> None:
    """Exit when standard input closes: a suite that is killed leaves no process behind."""

    def watch() -> None:
        while os.read(0, 1):  # unbuffered: a lock held at exit would abort the interpreter
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="leash").start()
