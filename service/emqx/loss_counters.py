"""What EMQX gave up, from the counters of its actions. Pure but for the call that reads them.

EMQX drops a message when a connection breaks while it is sending, when `request_ttl` is over or
a buffer is full, and counts it. It counts as well what the webhook refused for good; that is
known here and taken out. The counters are those of a node, and begin anew when it restarts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.emqx import reply_rule, resource_names
from service.emqx.management_api import EmqxAdmin

Counters = Mapping[str, float]
_LOSSES = ("failed", "dropped")


async def read(admin: EmqxAdmin, prefix: str) -> dict[str, dict[str, Counters]]:
    """The counters of our actions, by node and id. Raises BrokerError."""
    found: dict[str, dict[str, Counters]] = {}
    plain, ordered = (
        resource_names.action_id(prefix),
        resource_names.action_id(prefix, ordered=True),
    )
    for action in (plain, ordered, resource_names.recent_id(prefix)):
        for ident in (action, resource_names.again_id(action)):
            for node, counters in (await admin.node_metrics("action", ident)).items():
                found.setdefault(node, {})[ident] = counters
    return found


async def reply_fault(admin: EmqxAdmin, prefix: str, tokens: Sequence[str]) -> str | None:
    """What keeps replies from going through the reply rule. Raises BrokerError."""
    if not tokens:
        return None
    keys = [reply_rule.key(token, prefix) for token in tokens]
    return reply_rule.fault(await admin.get("rule", resource_names.reply_id(prefix)), keys)


def given_up(actions: Mapping[str, Counters]) -> int:
    """How many messages one node's actions lost; what a fallback took over is not."""
    lost = 0.0
    for ident, counters in actions.items():
        gone = sum(counters.get(name, 0) for name in _LOSSES)
        lost += max(0.0, gone - actions.get(resource_names.again_id(ident), {}).get("matched", 0))
    return int(lost)


@dataclass(slots=True)
class Losses:
    """Adds up what is new from one look to the next.

    `before` is what EMQX had lost when it was first looked at, `total` what came since.
    """

    before: int = 0
    total: int = 0
    _last: dict[str, int] = field(default_factory=dict)
    _refused: float = 0
    _excuses: float = 0

    def look(self, nodes: Mapping[str, Mapping[str, Counters]], refused: float) -> int:
        """What EMQX gave up since the last look, without what our webhook `refused` (in all).

        A refusal is counted here a moment before EMQX counts it, so it excuses a loss that is
        seen in this look or in the next one.
        """
        first = not self._last
        fresh = 0
        for node, actions in nodes.items():
            now, last = given_up(actions), self._last.get(node)
            self._last[node] = now
            if last is None and first:
                self.before += now
            else:  # a node that restarted, or is new, counts from nothing
                fresh += now - last if last is not None and now >= last else now
        recent = refused - self._refused
        self._refused = refused
        if first:
            return 0
        excused = min(float(fresh), self._excuses + recent)
        self._excuses = min(recent, self._excuses + recent - excused)
        fresh -= int(excused)
        self.total += fresh
        return fresh
