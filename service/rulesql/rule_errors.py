"""What can be wrong with a rule: its text (SqlError) or a message it meets (RuleException)."""

from __future__ import annotations

from typing import Any

import orjson


class SqlError(ValueError):
    """A text that EMQX refuses, or that is outside this subset; `line` and `column` from 1.

    `emqx` is how EMQX itself words it.
    """

    def __init__(
        self, message: str, *, line: int = 1, column: int = 1, hint: str = "", emqx: str = ""
    ) -> None:
        self.message = message
        self.line = line
        self.column = column
        self.hint = hint
        self.emqx = emqx or message
        said = f"line {line}, column {column}: {message}"
        super().__init__(f"{said} ({hint})" if hint else said)


class RuleException(Exception):
    """The rule raised on this message; EMQX counts it as `failed.exception` and goes on.

    `reason` is EMQX's, text or JSON; `phase` says where, once it is known.
    """

    def __init__(self, reason: Any, phase: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.phase = phase

    def __str__(self) -> str:
        if self.phase:
            return orjson.dumps({self.phase: self.reason}).decode()
        return self.reason if isinstance(self.reason, str) else orjson.dumps(self.reason).decode()
