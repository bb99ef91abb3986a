"""The rule engine: which rules a message meets, what they make of it, and how often."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from service.demo.standin.action import HttpAction
from service.demo.standin.buffer import Outcome
from service.demo.standin.published import Message
from service.demo.standin.resource_config import Settings
from service.demo.standin.template import as_bytes, as_text, lookup, value_of
from service.rulesql import Rule, RuleException

log = logging.getLogger(__name__)

_NUMBERS = ("Message-Expiry-Interval", "Payload-Format-Indicator")
_METRICS = (
    "actions.discarded actions.failed actions.failed.out_of_service actions.failed.unknown"
    " actions.success actions.total failed failed.exception failed.no_result matched passed"
)


@dataclass(eq=False)
class LoadedRule:
    """A rule as configured, parsed, with its counters."""

    id: str
    conf: Settings
    rule: Rule
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def actions(self) -> list[object]:
        found = self.conf["actions"]
        assert isinstance(found, list)
        return found

    def metrics(self) -> dict[str, int | float]:
        """The counters under EMQX's names."""
        rates = {"matched.rate": 0.0, "matched.rate.last5m": 0.0, "matched.rate.max": 0.0}
        return {**{name: self.counters[name] for name in _METRICS.split()}, **rates}


class RuleEngine:
    """Runs every enabled rule that matches. `publish` takes what rules republish."""

    def __init__(
        self, publish: Callable[[Message], object], metadata: Mapping[str, object] | None = None
    ) -> None:
        self._metadata = metadata or {}
        self.rules: dict[str, LoadedRule] = {}
        self.actions: dict[str, HttpAction] = {}
        self._publish = publish

    def handle(self, message: Message) -> None:
        """Runs the rules on a message. What goes wrong is counted and logged, never raised."""
        columns: dict[str, object] | None = None
        for loaded in list(self.rules.values()):
            if loaded.conf["enable"] and loaded.rule.matches(message.topic):
                columns = columns or message.columns()
                metadata = {"rule_id": loaded.id, **self._metadata}
                self._run(loaded, message, {**columns, "metadata": metadata})

    def _run(self, loaded: LoadedRule, message: Message, columns: Mapping[str, object]) -> None:
        count = loaded.counters
        count["matched"] += 1
        try:
            output = loaded.rule.run(columns)
        except RuleException as exc:
            count.update(("failed", "failed.exception"))
            log.warning(
                "rule %s raised on message %s on topic %r: %s; no action ran",
                loaded.id,
                message.id,
                message.topic,
                exc,
            )
            return
        except Exception:  # a fault of ours must not end the publisher's connection
            count.update(("failed", "failed.exception"))
            log.exception("rule %s failed on message %s", loaded.id, message.id)
            return
        if output is None:
            count.update(("failed", "failed.no_result"))
            return
        count["passed"] += 1
        for action in loaded.actions:
            count["actions.total"] += 1
            try:
                self._act(loaded, action, output, message)
            except RuleException as exc:
                count.update(("actions.failed", "actions.failed.unknown"))
                log.warning("rule %s, message %s: action failed: %s", loaded.id, message.id, exc)

    def _act(
        self, loaded: LoadedRule, action: object, output: dict[str, object], message: Message
    ) -> None:
        count = loaded.counters

        def told(outcome: Outcome) -> None:
            if outcome is Outcome.DONE:
                count["actions.success"] += 1
            else:
                count.update(("actions.failed", "actions.failed.unknown"))

        if isinstance(action, str):
            target = self.actions.get(action)
            if target is None:
                count.update(("actions.failed", "actions.failed.out_of_service"))
                log.warning("rule %s: there is no action %s", loaded.id, action)
            else:
                target.deliver(output, message, told)
            return
        assert isinstance(action, Mapping)
        if action["function"] == "republish":
            if message.republished_by == loaded.id:
                raise RuleException("recursive republish")
            self._publish(republished(action["args"], output, message, loaded.id))
        else:
            log.info("rule %s: message %s on topic %r", loaded.id, message.id, message.topic)
        count["actions.success"] += 1


def republished(
    args: Mapping[str, object], output: Mapping[str, object], message: Message, rule_id: str
) -> Message:
    """The message that a republish action makes. Raises RuleException for a bad topic."""
    topic = as_text(value_of(args["topic"], output))
    if not topic or "+" in topic or "#" in topic:
        raise RuleException("republish: bad topic")
    payload = args["payload"]
    qos, retain = value_of(args["qos"], output), value_of(args["retain"], output)
    properties: dict[str, object] = {"User-Property": {}}
    wanted = args["mqtt_properties"]
    assert isinstance(wanted, Mapping)
    for name, template in wanted.items():
        value = as_bytes(value_of(template, output))
        if value in (b"", b"undefined"):
            continue
        if name in _NUMBERS:
            if value.isdigit():  # EMQX leaves out what is no number
                properties[name] = int(value)
        else:
            properties[name] = value if name == "Correlation-Data" else as_text(value)
    user = value_of(args["user_properties"], output)
    if isinstance(user, Mapping) and user:
        pairs = {as_text(key): as_text(value) for key, value in user.items()}
        properties["User-Property"] = pairs
        properties["User-Property-Pairs"] = [{"key": k, "value": v} for k, v in pairs.items()]
    return Message(
        topic=topic,
        payload=as_bytes(lookup(".", output) if payload == "" else value_of(payload, output)),
        qos=qos if isinstance(qos, int) and qos in (0, 1, 2) else 0,
        retain=retain is True,
        clientid=rule_id,
        properties=properties,
        source=message.source,
        republished_by=rule_id,
    )
