"""Pins: what is set is printed, and the button is pressed once, a moment after the start."""


class Pin:
    IN, OUT, PULL_UP = 0, 1, 2

    def __init__(self, number: int, mode: int, pull: int = 0) -> None:
        self._number, self._mode, self._looks = number, mode, 0

    def value(self, to: int | None = None) -> int:
        if to is not None:
            print(f"pin {self._number}: {to}")
            return to
        self._looks += 1
        return 0 if self._looks == 5 else 1
