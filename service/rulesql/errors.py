"""What can be wrong with a rule: its text (SqlError) or a message it meets (RuleException)."""

from __future__ import annotations


class SqlError(ValueError):
    """A text that is no SQL of this subset; `line` and `column` count from 1.

    `emqx` is the short form in which EMQX itself would name a syntax error.
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
    """The rule raised on this message; EMQX counts it as `failed.exception` and goes on."""
