"""What can go wrong with an MCP server."""

from __future__ import annotations

from service import safe_text


class Trouble(Exception):
    """A sentence without its subject: "does not answer". `maybe`: what was asked may have been
    done all the same; `again`: another connection may do better at once."""

    def __init__(self, text: str, *, maybe: bool = False, again: bool = False) -> None:
        self.text = safe_text.line(text, 300)
        super().__init__(self.text)
        self.maybe = maybe
        self.again = again
