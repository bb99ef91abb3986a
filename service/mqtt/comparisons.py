"""`left = right` of two templates: whether a device's answer is the one that was waited for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.errors import MessageError
from service.mqtt.templates import MISSING, Scope, Template, TemplateError

CALL = "call_id"
_EQUALS = re.compile(r"\s*==?\s*(?![^{}]*\})")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two texts that have to be the same. Of one alone, the other is the call's own id."""

    text: str
    left: Template
    right: Template

    @classmethod
    def parse(cls, text: str) -> Comparison:
        """Read `${payload.on} = ${on}`, or `${payload.id}` alone. Raises TemplateError."""
        left, *rest = _EQUALS.split(text.strip(), maxsplit=1)
        right = rest[0] if rest else f"${{{CALL}}}"
        if not left or not right:
            raise TemplateError("nothing to compare with", 1, 'such as "${payload.on} = ${on}"')
        made = cls(text, Template.parse(left), Template.parse(right))
        if not any(name.partition(".")[0] == "payload" for name in made.names):
            hint = 'such as "${payload.on} = ${on}": payload is what the device says'
            raise TemplateError("it reads nothing of what the device says", 1, hint)
        return made

    @property
    def names(self) -> tuple[str, ...]:
        return self.left.names + self.right.names

    @property
    def needs_json(self) -> bool:
        """Whether it reads a value of the answer's JSON."""
        return any(name.startswith("payload.") for name in self.names)

    def holds(self, scope: Scope) -> bool:
        """Whether both sides are there, and the same. Numbers are equal by their value."""
        try:
            left, right = self.left.render_strict(scope), self.right.render_strict(scope)
        except MessageError:
            return False
        return left == right or _number(left) == _number(right) is not None

    def readable(self, scope: Scope) -> bool:
        """Whether the message has what is read of it."""
        return all(scope.get(name) is not MISSING for name in self.names)

    def __str__(self) -> str:
        return self.text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
