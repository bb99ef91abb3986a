"""How often somebody may try a wrong token."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from service.errors import TooManyAttempts

ADDRESSES = 10_000  # that are remembered; the longest unseen goes first


class Attempts:
    """`each` failures of one address and `all` of everybody within `seconds`; then nobody who is
    over looks at a token until that time is over. `clock` gives monotonic seconds."""

    def __init__(
        self, each: int, all: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._each = each
        self._all = all
        self._seconds = seconds
        self._clock = clock
        self._of: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._total = (clock(), 0)

    def check(self, address: str) -> None:
        """Raises TooManyAttempts."""
        now = self._clock()
        for (since, count), most in (
            (self._of.get(address, (now, 0)), self._each),
            (self._total, self._all),
        ):
            left = since + self._seconds - now
            if count >= most and left > 0:
                text = f"too many wrong tokens; try again in {int(left) + 1} s"
                raise TooManyAttempts(text, retry_after=int(left) + 1)

    def failed(self, address: str) -> None:
        now = self._clock()
        self._of[address] = self._counted(self._of.get(address, (now, 0)), now)
        self._of.move_to_end(address)
        if len(self._of) > ADDRESSES:
            self._of.popitem(last=False)
        self._total = self._counted(self._total, now)

    def _counted(self, slot: tuple[float, int], now: float) -> tuple[float, int]:
        since, count = slot
        return (since, count + 1) if now - since < self._seconds else (now, 1)
