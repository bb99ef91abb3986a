"""Who subscribed to what: a tree of topic levels, with shared subscriptions as groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.demo.standin.mqtt_broker.packets import Options
from service.demo.standin.mqtt_broker.reason_codes import ProtocolFault, Reason
from service.mqtt.topics import fault_in_filter

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.session import Session

MAX_LEVELS = 128  # as EMQX's mqtt.max_topic_levels


@dataclass(frozen=True, slots=True)
class Subscription:
    """`filter` without its `$share/group/`."""

    session: Session
    filter: str
    group: str | None
    options: Options
    identifier: int | None = None


@dataclass(eq=False)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    single: dict[str, Subscription] = field(default_factory=dict)  # by client id
    groups: dict[str, _Group] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.children or self.single or self.groups)


@dataclass(eq=False)
class _Group:
    members: dict[str, Subscription] = field(default_factory=dict)
    turn: int = 0

    def next(self) -> Subscription:
        """One member after the other; those connected before those away."""
        members = list(self.members.values())
        self.turn += 1
        ordered = members[self.turn % len(members) :] + members[: self.turn % len(members)]
        return next((one for one in ordered if one.session.link is not None), ordered[0])


class Router:
    """All subscriptions. Filters have been checked by `parse_filter`."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, subscription: Subscription) -> None:
        """Replaces the same session's subscription to the same filter."""
        node = self._root
        for level in subscription.filter.split("/"):
            node = node.children.setdefault(level, _Node())
        client_id = subscription.session.client_id
        if subscription.group is None:
            node.single[client_id] = subscription
        else:
            node.groups.setdefault(subscription.group, _Group()).members[client_id] = subscription

    def remove(self, subscription: Subscription) -> None:
        path, node = [self._root], self._root
        levels = subscription.filter.split("/")
        for level in levels:
            node = node.children[level]
            path.append(node)
        client_id = subscription.session.client_id
        if subscription.group is None:
            node.single.pop(client_id, None)
        elif (group := node.groups.get(subscription.group)) is not None:
            group.members.pop(client_id, None)
            if not group.members:
                del node.groups[subscription.group]
        for parent, level in zip(reversed(path[:-1]), reversed(levels), strict=True):
            if not parent.children[level].is_empty:
                return
            del parent.children[level]

    def matching(self, topic: str) -> Iterator[Subscription]:
        """Each subscription that gets a message on `topic`; of a group one member."""
        for node in self._nodes(topic.split("/")):
            yield from list(node.single.values())
            for group in list(node.groups.values()):
                yield group.next()

    def _nodes(self, levels: list[str]) -> Iterator[_Node]:
        special = levels[0].startswith("$")
        todo = [(self._root, 0)]
        while todo:
            node, depth = todo.pop()
            wild = not (special and depth == 0)
            if wild and (rest := node.children.get("#")) is not None:
                yield rest
            if depth == len(levels):
                yield node
                continue
            for name in (levels[depth], "+") if wild else (levels[depth],):
                if (child := node.children.get(name)) is not None:
                    todo.append((child, depth + 1))


def parse_filter(text: str) -> tuple[str | None, str]:
    """Group and filter of `$share/group/filter`, or None and the filter. Raises ProtocolFault."""
    group, topic_filter = None, text
    if text.startswith("$share/"):
        _, group, topic_filter = [*text.split("/", 2), ""][:3]
        if not group or "+" in group or "#" in group:
            raise ProtocolFault(Reason.TOPIC_FILTER_INVALID, "$share wants $share/group/filter")
    fault = fault_in_filter(topic_filter)
    if fault is None and topic_filter.count("/") >= MAX_LEVELS:
        fault = f"has more than {MAX_LEVELS} levels"
    if fault is not None:
        raise ProtocolFault(Reason.TOPIC_FILTER_INVALID, f"a topic filter that {fault}")
    return group, topic_filter
