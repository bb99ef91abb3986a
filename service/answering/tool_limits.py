"""What stands in a tool's way before a call goes out: hours, bounds, rates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from service.answering.request_limits import window
from service.domain import Message, Reservation
from service.flows import Tool
from service.mqtt.templates import Scope


class OverLimit(Exception):
    """It is not done; the text is for the model."""


def check_hours(tool: Tool, now: int) -> None:
    """Raises Refused outside of them; `now` is epoch ms."""
    if tool.hours is not None and not tool.hours.open(now):
        raise OverLimit(f"refused: {tool.name} may be used {tool.hours} only; nothing was done")


async def check_bounds(
    tool: Tool,
    arguments: Mapping[str, Any],
    scope: Scope,
    retained: Callable[[str], Awaitable[bytes | None]],
) -> None:
    """Raises Refused where an argument is too far from how things stand, or that is not known;
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
        stands = float(bounds.value.render_strict(known))
        change = abs(float(wanted) - stands)  # type: ignore[arg-type]
    except Exception:
        raise OverLimit("refused: how things stand is no number; nothing was done") from None
    if not change <= bounds.max_change:  # also where it is no number
        raise OverLimit(
            f"refused: {bounds.argument} may differ by {bounds.max_change:g} at most from the "
            f"present {stands:g}; nothing was done"
        )


def reservations(tool: Tool, flow: str, conversation: str, now: int) -> list[Reservation]:
    """What a call takes of the tool's rates."""
    wanted = []
    for limit, who in ((tool.rate, f"{conversation}"), (tool.flow_rate, "")):
        if limit is not None:
            kind = "rate" if limit is tool.rate else "flow_rate"
            key = f"tool_{kind}:{flow}:{tool.name}:{who}"
            wanted.append(Reservation(key, window(now, limit.per), 1, limit.count))
    return wanted
