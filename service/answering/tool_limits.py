"""What stands in a tool's way before a call goes out: hours, bounds, rates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

from service.answering.request_limits import window
from service.domain import Message, Reservation
from service.errors import MessageError
from service.flows import Flow, Tool
from service.mqtt.comparisons import number
from service.mqtt.templates import Scope, as_text


class OverLimit(Exception):
    """It is not done; the text is for the model."""


def check_hours(tool: Tool, now: int) -> None:
    """Raises OverLimit outside of them; `now` is epoch ms."""
    if tool.hours is not None and not tool.hours.open(now):
        raise OverLimit(f"refused: {tool.name} may be used {tool.hours} only; nothing was done")


def check_way(flow: Flow, tool: Tool, topic: str) -> None:
    """Raises OverLimit where a call would get round what stands before another tool. `check` finds
    such flows; the gate trusts nobody."""
    if (other := flow.bypassed(tool, topic)) is not None:
        raise OverLimit(f"refused: {topic} is for the tool {other}; nothing was done")


async def check_bounds(
    tool: Tool,
    arguments: Mapping[str, Any],
    scope: Scope,
    retained: Callable[[str], Awaitable[bytes | None]],
) -> None:
    """Raises OverLimit where an argument is too far from how things stand, or that is not known;
    BrokerError and MessageError."""
    bounds = tool.bounds
    if bounds is None:
        return
    wanted = arguments.get(bounds.argument)
    payload = await retained(bounds.read.render_topic(scope))
    if payload is None:
        raise OverLimit("refused: it is not known how things stand; nothing was done")
    known = Scope(Message("", "", payload, 0), {}, dict(arguments))
    try:
        stands, asked = number(bounds.value.render_strict(known)), number(as_text(wanted))
    except MessageError:
        stands = asked = None
    if stands is None or asked is None:
        raise OverLimit("refused: how things stand is no number; nothing was done")
    if not _near(asked, stands, bounds.max_change):
        raise OverLimit(
            f"refused: {bounds.argument} may differ by {bounds.max_change:g} at most from the "
            f"present {stands:g}; nothing was done"
        )


def _near(one: Decimal, other: Decimal, most: float) -> bool:
    """Whether they differ by `most` at most; exactly, as people write these numbers."""
    try:
        return abs(one - other) <= Decimal(str(most))
    except ArithmeticError:
        return False  # out of all bounds


def reservations(tool: Tool, flow: str, conversation: str, now: int) -> list[Reservation]:
    """What a call takes of the tool's rates."""
    wanted = []
    for limit, who in ((tool.rate, f"{conversation}"), (tool.flow_rate, "")):
        if limit is not None:
            kind = "rate" if limit is tool.rate else "flow_rate"
            key = f"tool_{kind}:{flow}:{tool.name}:{who}"
            wanted.append(Reservation(key, window(now, limit.per), 1, limit.count))
    return wanted
