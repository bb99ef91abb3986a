"""Whether a value is another one than the last: `on_change`, `deadband`, `within`. Pure."""

from __future__ import annotations

import math

from service.errors import MessageError
from service.flows.flow import Flow
from service.mqtt.templates import Scope

NOTHING = "\0"
"""The value of a message that has none: one of its own, which no device can send as a text."""


def value_of(flow: Flow, scope: Scope) -> str:
    """What `on_change` compares."""
    assert flow.on_change is not None
    try:
        return flow.on_change.render_strict(scope)
    except MessageError:
        return NOTHING


def changed(flow: Flow, last: str | None, value: str) -> bool:
    """Whether it is to be asked about; `last` None: nothing was yet."""
    if last is None:
        return True
    if flow.deadband is None and flow.within is None:
        return value != last
    before, now = _number(last), _number(value)
    if before is None or now is None:
        return value != last
    return abs(now - before) > max(flow.deadband or 0.0, (flow.within or 0.0) * abs(before))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
