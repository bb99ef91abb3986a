"""All connectors, actions and rules: created, updated and deleted in the order EMQX wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping

from service.demo.standin import hocon, resource_schema, wording
from service.demo.standin.action import Connector, HttpAction
from service.demo.standin.published import Message, now_ms
from service.demo.standin.refusal import Invalid
from service.demo.standin.resource_config import Settings
from service.demo.standin.rules import LoadedRule, RuleEngine, republished
from service.rulesql import RuleException, parse

# EMQX's roots; all but connectors, actions and rule_engine are taken and left alone
_ROOTS = """
actions alarm api_key authentication authorization auto_subscribe bridges cluster
conn_congestion connectors crl_cache dashboard delayed durable_sessions durable_storage exhook
flapping_detect force_gc force_shutdown gateway limiter listeners log mqtt node
overload_protection prometheus psk_authentication retainer rewrite rpc rule_engine slow_subs
sources sys_topics sysmon telemetry topic_metrics
"""
_KNOWN_ROOTS = frozenset(_ROOTS.split())


class Refused(Exception):
    """EMQX would answer 400. `errors` is a configuration's `errors` or a plain message."""

    def __init__(self, errors: object, code: str = "BAD_REQUEST", **more: object) -> None:
        super().__init__(str(errors))
        self.errors = errors
        self.code = code
        self.more = more


class EmptyConfiguration(Exception):
    """EMQX answers 500 to no configuration at all."""


class Missing(Exception):
    """EMQX would answer 404 with this message."""

    code = "NOT_FOUND"


class Resources:
    """What is configured and what runs."""

    def __init__(
        self,
        publish: Callable[[Message], object],
        *,
        newer: bool = False,
        namespace: str | None = None,
    ) -> None:
        """`newer`: as EMQX 6 has them. `namespace` None is the global one."""
        self.newer = newer
        self.namespace = namespace
        self._publish = publish
        self.connectors: dict[str, Connector] = {}
        self.actions: dict[str, HttpAction] = {}
        metadata = {"namespace": namespace or "global"} if newer else {}
        self.engine = RuleEngine(publish, metadata)
        self.changing = asyncio.Lock()  # to be held around every change

    # the whole configuration

    async def load(self, text: str, *, replace: bool = False) -> None:
        """PUT /configs: checks everything, then changes; merges into what is there.

        Raises Refused, and Invalid for a missing field (EMQX answers 500 to that).
        """
        if not text.strip():  # EMQX's own slip, recorded
            raise EmptyConfiguration
        try:
            tree = hocon.load(text)
        except hocon.HoconError as exc:
            raise Refused(exc.errors) from None
        unknown = {
            root: f'{{root_key_not_found,<<"{root}">>}}'
            for root in tree
            if root not in _KNOWN_ROOTS
        }
        if unknown:
            raise Refused(unknown)
        await self.merge(tree, replace=replace)

    async def merge(self, tree: Mapping[str, object], *, replace: bool = False) -> None:
        """The same from the tree of such a text."""
        connectors = self._section(tree, "connectors", "http")
        actions = self._section(tree, "actions", "http")
        rules = self._section(tree, "rule_engine", "rules")
        checked = (
            self._all(self.check_connector, connectors, self.connector_confs(), "connectors.http"),
            self._all(self.check_action, actions, self.action_confs(), "actions.http"),
            self._all(resource_schema.rule, rules, self.rule_confs(), "rule_engine.rules"),
        )
        known = {*self.connectors, *checked[0]}
        for name, conf in checked[1].items():
            if conf["connector"] not in known:
                raise Refused(self._orphan(name, conf))
        for name, conf in checked[0].items():
            await self.put_connector(name, conf)
        for name, conf in checked[1].items():
            await self.put_action(name, conf)
        for name, conf in checked[2].items():
            self.put_rule(name, conf)
        if replace:
            await self._drop_others(tree, *checked)

    @staticmethod
    def _section(tree: Mapping[str, object], root: str, kind: str) -> Mapping[str, object]:
        section = tree.get(root, {})
        if not isinstance(section, Mapping):
            raise Refused({root: Invalid(root, "expected an object", section).as_json()})
        for key in section:
            if root != "rule_engine" and key != kind:
                raise Refused({root: f"the stand-in knows {root} of type http only, not {key}"})
        found = section.get(kind, {})
        return found if isinstance(found, Mapping) else {}

    def _all(
        self,
        check: Callable[[object, str], Settings],
        new: Mapping[str, object],
        old: Mapping[str, Settings],
        path: str,
    ) -> dict[str, Settings]:
        checked = {}
        for name, conf in new.items():
            before = {k: v for k, v in old.get(name, {}).items() if not k.endswith("_at")}
            try:
                checked[name] = check(_merged(before, conf), f"{path}.{name}")
            except Invalid as exc:
                if exc.reason == "required_field":
                    raise
                if exc.path is None and path == "connectors.http":
                    raise Refused(self._bad_url(name, conf, exc.reason)) from None
                raise Refused({path.split(".")[0]: exc.as_json()}) from None
        return checked

    async def _drop_others(
        self,
        tree: Mapping[str, object],
        connectors: Mapping[str, object],
        actions: Mapping[str, object],
        rules: Mapping[str, object],
    ) -> None:
        if "rule_engine" in tree:
            for name in set(self.engine.rules) - set(rules):
                self.delete_rule(name)
        if "actions" in tree:
            for name in set(self.actions) - set(actions):
                await self.delete_action(name)
        if "connectors" in tree:
            for name in set(self.connectors) - set(connectors):
                await self.delete_connector(name)

    def _orphan(self, name: str, conf: Settings) -> str:
        """EMQX's words for an action on a connector that does not exist."""
        return wording.cannot_merge(
            ("actions", "emqx_bridge_v2"),
            self.action_confs(),
            {name: conf},
            f"                         #{{bridge_name => {name},bridge_type => http,\n"
            f'                           connector_name => <<"{conf["connector"]}">>,\n'
            "                           reason =>\n"
            '                               <<"connector_not_found_or_wrong_type">>}}}]}]}\n',
        )

    def _bad_url(self, name: str, conf: object, reason: object) -> str:
        """EMQX's words for a connector whose url is none."""
        assert isinstance(conf, Mapping)
        filled = resource_schema.connector({**conf, "url": "http://x"}, "") | {
            "url": conf.get("url")
        }
        return wording.cannot_merge(
            ("connectors", "emqx_connector"),
            self.connector_confs(),
            {name: filled},
            "                         #{kind => validation_error,\n"
            "                           reason =>\n"
            f'                               <<"{reason}">>}}}}}}]}}]}}\n',
        )

    def check_connector(self, conf: object, path: str, more: tuple[str, ...] = ()) -> Settings:
        return resource_schema.connector(conf, path, newer=self.newer, more=more)

    def check_action(self, conf: object, path: str, more: tuple[str, ...] = ()) -> Settings:
        return resource_schema.action(conf, path, newer=self.newer, more=more)

    # one by one

    def connector_confs(self) -> dict[str, Settings]:
        return {name: item.conf for name, item in self.connectors.items()}

    def action_confs(self) -> dict[str, Settings]:
        return {name: item.conf for name, item in self.actions.items()}

    def rule_confs(self) -> dict[str, Settings]:
        return {name: item.conf for name, item in self.engine.rules.items()}

    async def put_connector(self, name: str, conf: Settings) -> None:
        """Creates or updates; an update restarts it and its actions, as in EMQX."""
        old = self.connectors.get(name)
        if old is not None and old.conf == conf:
            return
        if old is not None:
            await old.stop()
        connector = self.connectors[name] = Connector(name, conf)
        await connector.start()
        for action in list(self.actions.values()):
            if action.conf["connector"] == name:
                await self._start_action(action.name, action.conf)

    async def put_action(self, name: str, conf: Settings, *, keep_age: bool = True) -> None:
        """Creates or updates. Raises Refused without its connector."""
        old = self.actions.get(name)
        if old is not None and _same(old.conf, conf):
            return
        if conf["connector"] not in self.connectors:
            said = {
                "reason": "connector_not_found_or_wrong_type",
                "connector_name": conf["connector"],
                "conf_root_key": "actions",
                "bridge_type": "http",
                "bridge_name": name,
            }
            raise Refused(json.dumps(said, separators=(",", ":")))
        await self._start_action(name, _stamped(conf, old.conf if old and keep_age else None))

    async def _start_action(self, name: str, conf: Settings) -> None:
        old = self.actions.get(name)
        if old is not None:
            await old.stop()
        connector = self.connectors[str(conf["connector"])]
        action = HttpAction(name, conf, connector, self._fall_back)
        if old is not None:
            action.counters.update(old.counters)
        self.actions[name] = self.engine.actions[f"http:{name}"] = action
        await action.start()

    def _fall_back(
        self, entry: Mapping[str, object], output: Mapping[str, object], message: Message
    ) -> None:
        """An entry of `fallback_actions`, for a message that its action gave up."""
        if entry["kind"] == "reference":
            other = self.actions.get(str(entry["name"]))
            if other is not None:
                other.deliver(output, message)
            return
        args = entry["args"]
        assert isinstance(args, Mapping)
        with contextlib.suppress(RuleException):
            self._publish(republished(args, output, message, "fallback"))

    def put_rule(self, rule_id: str, conf: Settings) -> LoadedRule:
        """Creates or updates a checked rule."""
        old = self.engine.rules.get(rule_id)
        if old is not None and _same(old.conf, conf):
            return old
        stamped = _stamped(conf, old.conf if old else None)
        loaded = LoadedRule(rule_id, stamped, parse(str(conf["sql"])))
        if old is not None:
            loaded.counters = old.counters
        self.engine.rules[rule_id] = loaded
        return loaded

    async def delete_connector(self, name: str) -> None:
        """Raises Missing, and Refused while an action uses it."""
        connector = self.connector(name)
        users = [action for action in self.actions.values() if action.conf["connector"] == name]
        if users:
            channels = ",".join(
                f'{{<<"action:http:{user.name}:connector:http:{name}">>,'
                f"{wording.channel(user.name, user.conf)}}}"
                for user in sorted(users, key=lambda user: user.name)
            )
            raise Refused(
                '{<<"Cannot delete connector while there are active channels defined for this'
                f' connector">>,[{channels}]}}'
            )
        del self.connectors[name]
        await connector.stop()

    async def delete_action(self, name: str) -> None:
        """Raises Missing, and Refused while a rule uses it."""
        if name not in self.actions:
            raise Missing(
                f"Bridge lookup failed: bridge named '{name}' of type http does not exist."
            )
        action = self.actions[name]
        users = self.rules_of(name)
        if users:
            message = "Cannot delete action while active rules are depending on it"
            raise Refused(message, rules=users)
        del self.actions[name], self.engine.actions[f"http:{name}"]
        await action.stop()

    def delete_rule(self, rule_id: str) -> None:
        """Raises Missing."""
        self.rule(rule_id)
        del self.engine.rules[rule_id]

    def connector(self, name: str) -> Connector:
        if name not in self.connectors:
            raise Missing(
                f"Connector lookup failed: connector named '{name}' of type http does not exist."
            )
        return self.connectors[name]

    def action(self, name: str) -> HttpAction:
        if name not in self.actions:
            raise Missing(
                f"Action lookup failed: action named '{name}' of type http does not exist."
            )
        return self.actions[name]

    def rule(self, rule_id: str) -> LoadedRule:
        if rule_id not in self.engine.rules:
            raise Missing("Rule Id Not Found")
        return self.engine.rules[rule_id]

    def rules_of(self, action: str) -> list[str]:
        return sorted(
            rule.id for rule in self.engine.rules.values() if f"http:{action}" in rule.actions
        )

    async def stop(self) -> None:
        self.engine.rules.clear()
        for action in self.actions.values():
            await action.stop()
        for connector in self.connectors.values():
            await connector.stop()


def _merged(old: Mapping[str, object], new: object) -> object:
    if not isinstance(new, Mapping):
        return new
    merged = dict(old)
    for key, value in new.items():
        inner = old.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) else value
    return merged


def _same(old: Settings, new: Settings) -> bool:
    return {k: v for k, v in old.items() if not k.endswith("_at")} == {
        k: v for k, v in new.items() if not k.endswith("_at")
    }


def _stamped(conf: Settings, old: Settings | None) -> Settings:
    now = now_ms()
    created = old["created_at"] if old else now
    return Settings(conf, created_at=created, last_modified_at=now)
