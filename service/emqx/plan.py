"""What has to happen so that EMQX has what the flows want: desired × actual → Plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from service.emqx import reply_rule, resource_names
from service.emqx.compare import Difference, differences
from service.emqx.management_api import Json
from service.emqx.resources import Desired, Kind, Placeholder
from service.errors import BrokerError


class Do(StrEnum):
    """What to do with a resource."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    LEAVE = "leave"  # it is as it should be
    FOREIGN = "foreign"  # somebody else's, but it touches ours; it stays
    TAKEN = "taken"  # somebody else's, under the name that ours needs


PENDING = frozenset({Do.CREATE, Do.CHANGE, Do.DELETE})


@dataclass(frozen=True, slots=True)
class Actual:
    """What the broker has: our connectors and actions by kind and id, and everybody's rules."""

    found: Mapping[tuple[Kind, str], Json] = field(default_factory=dict)
    rules: tuple[Json, ...] = ()

    def get(self, kind: Kind, ident: str) -> Json | None:
        if kind == "rule":
            return next((rule for rule in self.rules if rule["id"] == ident), None)
        return self.found.get((kind, ident))


@dataclass(frozen=True, slots=True)
class Step:
    """One resource. `ident` as the REST API names it."""

    do: Do
    kind: Kind
    ident: str
    fields: tuple[Difference, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.ident}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they would be carried out."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = field(default=())

    def doing(self, *what: Do) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.do in what)

    @property
    def pending(self) -> tuple[Step, ...]:
        """What apply would do."""
        return self.doing(*PENDING)

    @property
    def in_step(self) -> bool:
        return not self.doing(*PENDING, Do.TAKEN)

    def refuse_taken(self) -> None:
        """Raises BrokerError if a name that we need is somebody else's."""
        if taken := self.doing(Do.TAKEN):
            listed = ", ".join(str(step) for step in taken)
            raise BrokerError(
                f"EMQX has a {listed} that is not ours: rename it there, or choose another "
                "--prefix (ours is told by a description that begins with "
                f"{resource_names.MARK!r})",
                code="broker_name_taken",
            )

    def as_json(self) -> dict[str, Any]:
        """For scripts: `{"in_step", "steps": [{"do", "kind", "id", "fields", "note"}], …}`."""
        return {
            "in_step": self.in_step,
            "steps": [
                {
                    "do": step.do.value,
                    "kind": step.kind,
                    "id": step.ident,
                    "fields": [asdict(field) for field in step.fields],
                    "note": step.note,
                }
                for step in self.steps
            ],
            "notes": list(self.notes),
        }


def plan(desired: Desired, actual: Actual, *, force: bool = False) -> Plan:
    """Compare everything. Nothing is refused here: see `Plan.refuse_taken`.

    `force`: what EMQX masks is put in again.
    """
    steps = [
        *(step(desired, kind, i, actual.get(kind, i), force=force) for kind, i, _ in desired),
        *_others(desired, actual),
    ]
    notes = []
    left = [each.ident for each in steps if each.kind == "connector" and each.do is Do.LEAVE]
    if desired.target is None and actual.found:
        notes.append("WEBHOOK_TOKEN is not set here, so it and REPLY_KEY are not compared")
    elif any(_by_hand(actual.get("connector", ident)) for ident in left):
        notes.append(
            "the token is not compared: EMQX masks it, and it was loaded by hand "
            "(apply --force puts it in again)"
        )
    return Plan(tuple(steps), tuple(notes))


def _by_hand(connector: Json | None) -> bool:
    return connector is not None and not resource_names.fingerprint_in(
        str(connector.get("description"))
    )


def step(
    desired: Desired,
    kind: Kind,
    ident: str,
    have: Mapping[str, Any] | None,
    *,
    force: bool = False,
) -> Step:
    """What to do about one resource that we want."""
    if have is None:
        return Step(Do.CREATE, kind, ident)
    description = str(have.get("description", ""))
    if kind == "rule":
        ours = resource_names.is_ours(desired.prefix, ident, description)
    else:
        ours = description.startswith(resource_names.MARK)
    if not ours:
        return Step(Do.TAKEN, kind, ident, note="somebody else's resource has this name")
    fields = differences(wanted(desired, kind, ident), have, force=force)
    return Step(Do.CHANGE if fields else Do.LEAVE, kind, ident, fields)


def wanted(desired: Desired, kind: Kind, ident: str) -> Mapping[str, Any]:
    """The configuration that we want a resource to have."""
    body = desired.body(kind, ident)
    if isinstance(body.get("url"), Placeholder):
        return {key: value for key, value in body.items() if key != "url"}
    return body


def _others(desired: Desired, actual: Actual) -> Iterator[Step]:
    """Rules of ours whose flow is gone, and rules of others that touch what is ours."""
    internal = reply_rule.topic(desired.prefix)
    for rule in actual.rules:
        ident = str(rule["id"])
        if ident in desired.rules:
            continue
        if resource_names.is_ours(desired.prefix, ident, str(rule.get("description", ""))):
            yield Step(Do.DELETE, "rule", ident, note="its flow is gone")
        elif any(action in desired.actions for action in uses(rule)):
            yield Step(Do.FOREIGN, "rule", ident, note="sends to our action; it stays")
        elif internal in rule.get("from", ()):
            yield Step(Do.FOREIGN, "rule", ident, note=f"reads {internal}; it stays")


def uses(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """The actions that a rule hands its output to."""
    return tuple(action for action in rule.get("actions", ()) if isinstance(action, str))
