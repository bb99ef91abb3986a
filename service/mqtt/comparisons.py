"""`left = right` of two templates: whether a device's answer is the one that was waited for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from service.errors import MessageError
from service.mqtt.templates import MISSING, Scope, Template, TemplateError

CALL = "call_id"
_EQUALS = re.compile(r"\s*==?\s*(?![^{}]*\})")
_PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_JSON = re.compile(rf"[ \t\r\n]*({_PLAIN.pattern}([eE][+-]?[0-9]+)?)[ \t\r\n]*")


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
        """Whether both sides are there, and the same. Numbers are equal by their value: a number
        beside anything that JSON would read as one. Two texts are numbers in plain form only:
        they may be ids, and "007" is not "7", nor "1e3" "1000"."""
        try:
            left, right = self.left.render_strict(scope), self.right.render_strict(scope)
        except MessageError:
            return False
        if left == right:
            return True
        typed = _is_number(self.left, scope) or _is_number(self.right, scope)
        if not typed and not (_PLAIN.fullmatch(left) and _PLAIN.fullmatch(right)):
            return False
        one, other = number(left), number(right)
        return one is not None and one == other

    def readable(self, scope: Scope) -> bool:
        """Whether the message has what is read of it."""
        return all(scope.get(name) is not MISSING for name in self.names)

    def __str__(self) -> str:
        return self.text


def number(text: str) -> Decimal | None:
    """The number that a text is in JSON, exactly; None: it is none."""
    found = _JSON.fullmatch(text)
    try:
        return Decimal(found[1]) if found is not None else None
    except InvalidOperation:
        return None  # an exponent of twenty digits


def _is_number(side: Template, scope: Scope) -> bool:
    """Whether a side is a number, rather than a text that looks like one: by its type in JSON, or
    as the author wrote it."""
    if not side.names:
        return True
    [(part, is_name), *more] = side.parts
    value = scope.get(part) if is_name and not more else None
    return isinstance(value, int | float) and not isinstance(value, bool)
