"""Whether a value is another one than the last: `on_change`, `deadband`, `within`. Pure."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from service.errors import MessageError
from service.flows.flow import Flow
from service.mqtt.templates import Scope

NOTHING = "\0"
"""The value of a message that has none: one of its own, which no device can send as a text."""
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_SAFE_DIGITS = 15  # a float has so many without noise


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
    band = max(_exact(flow.deadband or 0.0), _exact(flow.within or 0.0) * abs(before))
    return abs(now - before) > band


def _number(text: str) -> Decimal | None:
    """As it is written: as floats, 20.3 and 20.6 are more than 0.3 apart."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(number := float(text)):
        return None
    return Decimal(text) if number else Decimal(0)  # Decimal knows no 1e-9999999999999999999


def _exact(share: float) -> Decimal:
    """What flows.toml says: 1.1 % is 0.011, as a float 0.011000000000000001."""
    return Decimal(f"{share:.{_SAFE_DIGITS}g}")
