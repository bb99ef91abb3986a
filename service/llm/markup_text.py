"""The text that a user sees, while it is put together: blanks at its ends, and what is code."""

from __future__ import annotations

import re

from service.llm.markup_prose import FENCE, LINE, fence_after, rest_of_line


class VisibleText:
    """Without blanks at its ends. `line` is its last line so far, as it was written."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._new: list[str] = []
        self._held: list[str] = []  # blanks and "</s>": shown only if something follows
        self._trim = False
        self._fence = ""
        self.line = ""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __str__(self) -> str:
        return "".join(self._parts)

    def show(self, text: str) -> None:
        *lines, last = (self.line + text).split("\n")
        for line in lines:
            self._fence = fence_after(self._fence, line)
        self.line = last if len(last) < 2 * LINE else last[:8] + last[-LINE:]
        if not self._parts or self._trim:
            text = text.lstrip()
        if not text:
            return
        if text.isspace():
            self._held.append(text)
            return
        self._trim = False
        body = text.rstrip()
        tail = text[len(body) :]
        body = "".join(self._held) + body
        self._held = [tail] if tail else []
        self._parts.append(body)
        self._new.append(body)

    def hold(self, tail: str) -> None:
        """Shown only if something follows."""
        self._held.append(tail)

    def resume(self) -> None:
        """Something was cut out: of the blanks around it one side is enough."""
        self._trim = bool(self._held)
        self.line = self._fence = ""

    def new(self) -> str:
        """What was shown since the last call."""
        text = "".join(self._new)
        self._new.clear()
        return text

    def take_back(self) -> str:
        """All of it was none of the answer."""
        text = str(self) + "".join(self._held)
        self._parts.clear()
        self._new.clear()
        self._held.clear()
        self.line = self._fence = ""
        return text

    def in_code(self, after: str, final: bool) -> bool | None:
        """Whether the end of it is inside Markdown code; None: more has to come."""
        if self._fence or FENCE.match(self.line):
            return True
        if len(re.findall("`+", self.line)) % 2 == 0:
            return False
        line, complete = rest_of_line(after, final)
        return "`" in line if "`" in line or complete else None
