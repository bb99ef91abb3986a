"""Text that comes in pieces. Pure."""

from __future__ import annotations


class GrowingText:
    """Joined now and then: letters one by one take fifty times their room, and to join them at
    each would take time that grows with the square of the text."""

    def __init__(self, text: str = "") -> None:
        self.size = len(text)
        """In characters."""
        self._pieces = [text]

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        self.size += len(piece)
        if len(self._pieces) > 1_000:
            self._pieces = [self.text]

    @property
    def text(self) -> str:
        return "".join(self._pieces)
