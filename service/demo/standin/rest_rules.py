"""The REST side's rules, and trying one out."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.demo.standin import refusal, resource_schema
from service.demo.standin.published import NODE, Message, now_ms, rfc3339
from service.demo.standin.resources import Refused, Resources
from service.demo.standin.rest_clients import paged
from service.demo.standin.rest_resources import namespaced, read_object, spanned
from service.demo.standin.rules import LoadedRule
from service.rulesql import RuleException, SqlError, parse, to_json

Handler = Callable[[Request], Awaitable[Response]]
_ID = "^[A-Za-z0-9]+[A-Za-z0-9-_]*$"
_SHOWN = ("id", "from", "created_at", "last_modified_at")


class Handlers:
    """One handler for each call. What they raise is turned into answers by `rest`."""

    def __init__(self, resources: Resources, others: Mapping[str, Resources]) -> None:
        self._resources = resources
        self._others = others

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("/rule_test", "POST", self.rule_test),
            ("/rules", "GET", self.rules),
            ("/rules", "POST", self.create),
            ("/rules/{id}", "GET", self.rule),
            ("/rules/{id}", "PUT", self.update),
            ("/rules/{id}", "DELETE", self.delete),
            ("/rules/{id}/metrics", "GET", self.metrics),
            ("/rules/{id}/metrics/reset", "PUT", self.reset_metrics),
        ]

    async def rules(self, request: Request) -> Response:
        found = [
            _show(rule, resources)
            for resources in spanned(request, self._resources, self._others)
            for _, rule in sorted(resources.engine.rules.items(), reverse=True)
            if _wanted(rule, request.query_params)
        ]
        return paged(request, found)

    async def create(self, request: Request) -> Response:
        body = await read_object(request)
        rule_id = body.get("id") or secrets.token_hex(4)
        if not isinstance(rule_id, str):
            raise refusal.Invalid("root.id", "expected a string", rule_id)
        if rule_id in self._resources.engine.rules:
            raise Refused("rule id already exists")
        return JSONResponse(_show(self._put(rule_id, body), self._resources), 201)

    async def rule(self, request: Request) -> Response:
        return JSONResponse(_show(self._rule_of(request), self._resources))

    async def update(self, request: Request) -> Response:
        # EMQX creates a rule that does not exist yet
        rule = self._put(request.path_params["id"], await read_object(request))
        return JSONResponse(_show(rule, self._resources))

    async def delete(self, request: Request) -> Response:
        self._resources.delete_rule(self._rule_of(request).id)
        return Response(status_code=204)

    async def metrics(self, request: Request) -> Response:
        rule = self._rule_of(request)
        metrics = rule.metrics()
        nodes = [{"node": NODE, "metrics": metrics}]
        return JSONResponse({"id": rule.id, "metrics": metrics, "node_metrics": nodes})

    async def reset_metrics(self, request: Request) -> Response:
        self._rule_of(request).counters.clear()
        return Response(status_code=204)

    async def rule_test(self, request: Request) -> Response:
        body = await read_object(request)
        if "sql" not in body:
            raise refusal.Invalid("root.sql", "required_field")
        columns = _example(body.get("context", {}))
        sql = str(body["sql"])
        if not sql:
            raise Refused("invalid_string")
        try:
            rule = parse(sql)
        except SqlError as exc:
            raise Refused(exc.emqx) from None
        if columns is None or not rule.matches(str(columns["topic"])):
            return _no_match()
        try:
            output = rule.run(columns)
        except RuleException as exc:
            raise Refused(str(exc)) from None
        if output is None:
            return _no_match()
        return Response(to_json(output), media_type="application/json")

    def _rule_of(self, request: Request) -> LoadedRule:
        return self._resources.rule(request.path_params["id"])

    def _put(self, rule_id: str, body: Mapping[str, object]) -> LoadedRule:
        conf = {key: value for key, value in body.items() if key not in _SHOWN}
        try:
            if not re.fullmatch(_ID[1:-1], rule_id):
                raise refusal.Invalid(
                    "rule_engine.rules",
                    refusal.Term("invalid_map_key"),
                    expected_data_type=_ID,
                    got=refusal.Term(f'"{rule_id}"'),
                )
            return self._resources.put_rule(
                rule_id, resource_schema.rule(conf, f"rule_engine.rules.{rule_id}")
            )
        except refusal.Invalid as exc:
            raise Refused(f"Bad Arguments: {exc.in_erlang()}") from None


def _no_match() -> Response:
    return JSONResponse({"code": "NOT_MATCH", "message": "SQL Not Match"}, 412)


def _example(context: object) -> dict[str, object] | None:
    """The columns of a tried message, EMQX's own where `context` names none.

    None for an event that is no message. Raises Refused in EMQX's words.
    """
    if not isinstance(context, Mapping):
        raise refusal.Invalid("root.context", refusal.expected("map"), context)
    event = context.get("event_type")
    if event not in _EVENTS:
        reason = '<<"unknown event type">>'
        raise _bad_context(
            reason=reason, value=event or refusal.Term("undefined"), field_name="event_type"
        )
    if event != "message_publish":
        return None
    payload = context.get("payload", '{"msg": "hello"}')
    if not isinstance(payload, str):
        raise _bad_context(
            where=".payload",
            reason='#{expected => "binary()"}',
            value=refusal.Term(refusal.erlang(payload, is_data=True)),
            matched_type=refusal.Term('"rule_engine:ctx_pub"'),
        )
    now = now_ms()
    return {
        **Message(topic="t/a", payload=b"", received_at=now).columns(),
        "clientid": "c_emqx",
        "username": "u_emqx",
        "peerhost": "192.168.0.10",
        "peername": "192.168.0.10:32781",
        "client_attrs": {"test": "example"},
        "flags": {},
        "pub_props": {
            "Message-Expiry-Interval": 30,
            "Payload-Format-Indicator": 0,
            "User-Property": {"foo": "bar"},
            "User-Property-Pairs": [{"key": "foo"}, {"value": "bar"}],
        },
        "metadata": {"rule_id": f"sql_tester:{secrets.token_hex(8)}"},
        **context,
        "payload": payload,
    }


def _bad_context(*, reason: str, value: object, where: str = "", **more: object) -> Refused:
    exc = refusal.Invalid(f"rule_test.context{where}", refusal.Term(reason), value, **more)
    if "field_name" in more:
        exc.more["field_name"] = refusal.Term(str(more["field_name"]))
    return Refused(f"Bad Arguments: {exc.in_erlang()}")


_EVENTS = (
    "message_publish",
    "message_delivered",
    "message_acked",
    "message_dropped",
    "client_connected",
    "client_disconnected",
    "client_connack",
    "session_subscribed",
    "session_unsubscribed",
    "delivery_dropped",
)


def _wanted(rule: LoadedRule, query: Mapping[str, str]) -> bool:
    if "enable" in query and (query["enable"] == "true") != rule.conf["enable"]:
        return False
    if query.get("like_id", "") not in rule.id:
        return False
    if "from" in query and query["from"] not in rule.rule.sources:
        return False
    return "action" not in query or query["action"] in rule.actions


def _show(rule: LoadedRule, resources: Resources) -> dict[str, object]:
    details = [
        {"name": action.name, "type": "http", "status": action.status}
        for action in resources.actions.values()
        if f"http:{action.name}" in rule.actions
    ]
    return {
        **rule.conf,
        **namespaced(resources),
        **({"action_details": details} if resources.newer else {}),
        "id": rule.id,
        "from": list(rule.rule.sources),
        "created_at": rfc3339(rule.conf["created_at"]),
        "last_modified_at": rfc3339(rule.conf["last_modified_at"]),
    }
