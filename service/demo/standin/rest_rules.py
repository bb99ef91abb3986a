"""The REST side's rules, and trying one out."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.demo.standin import schema
from service.demo.standin.message import NODE, Message, rfc3339
from service.demo.standin.resources import Refused, Resources
from service.demo.standin.rest_resources import read_object
from service.demo.standin.rules import LoadedRule
from service.rulesql import RuleException, SqlError, parse, to_json

Handler = Callable[[Request], Awaitable[Response]]
_SHOWN = ("id", "from", "created_at", "last_modified_at")


class Handlers:
    """One handler for each call. What they raise is turned into answers by `rest`."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

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
        query = request.query_params
        try:
            page, limit = int(query.get("page", "1")), int(query.get("limit", "100"))
        except ValueError:
            raise Refused("page and limit are integers") from None
        if page < 1 or not 1 <= limit <= 10000:
            raise Refused("page is at least 1, limit between 1 and 10000")
        rules = reversed(self._resources.engine.rules.values())
        found = [rule for rule in rules if _wanted(rule, query)]
        found.sort(key=_created, reverse=True)
        at = (page - 1) * limit
        meta = {
            "count": len(found),
            "hasnext": at + limit < len(found),
            "limit": limit,
            "page": page,
        }
        return JSONResponse({"data": [_show(r) for r in found[at : at + limit]], "meta": meta})

    async def create(self, request: Request) -> Response:
        body = await read_object(request)
        rule_id = body.get("id") or secrets.token_hex(4)
        if not isinstance(rule_id, str):
            raise schema.Invalid("root.id", "expected a string", rule_id)
        if rule_id in self._resources.engine.rules:
            raise Refused("Rule id already exists")
        return JSONResponse(_show(self._put(rule_id, body)), 201)

    async def rule(self, request: Request) -> Response:
        return JSONResponse(_show(self._rule_of(request)))

    async def update(self, request: Request) -> Response:
        # EMQX creates a rule that does not exist yet
        return JSONResponse(_show(self._put(request.path_params["id"], await read_object(request))))

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
            raise schema.Invalid("root.sql", "required_field")
        try:
            rule = parse(str(body["sql"]))
        except SqlError as exc:
            raise Refused(schema.parse_error(exc, str(body["sql"]))) from None
        context = body.get("context", {})
        if not isinstance(context, Mapping):
            raise schema.Invalid("root.context", "expected an object", context)
        if context.get("event_type", "message_publish") != "message_publish":
            raise Refused("the stand-in tests message_publish only")
        columns = Message(topic=str(context.get("topic", "")), payload=b"").columns()
        columns.update({key: value for key, value in context.items() if key != "event_type"})
        try:
            matched = rule.matches(str(columns["topic"]))
            output = rule.run(columns) if matched else None
            answer = None if output is None else to_json(output)
        except RuleException as exc:
            raise Refused(str(exc)) from None
        if answer is None:
            return JSONResponse({"code": "NOT_MATCH", "message": "SQL Not Match"}, 412)
        return Response(answer, media_type="application/json")

    def _rule_of(self, request: Request) -> LoadedRule:
        return self._resources.rule(request.path_params["id"])

    def _put(self, rule_id: str, body: Mapping[str, object]) -> LoadedRule:
        conf = {key: value for key, value in body.items() if key not in _SHOWN}
        return self._resources.put_rule(rule_id, schema.rule(conf, "root"))


def _created(rule: LoadedRule) -> int:
    created = rule.conf["created_at"]
    assert isinstance(created, int)
    return created


def _wanted(rule: LoadedRule, query: Mapping[str, str]) -> bool:
    if "enable" in query and (query["enable"] == "true") != rule.conf["enable"]:
        return False
    if query.get("like_id", "") not in rule.id:
        return False
    if "from" in query and query["from"] not in rule.rule.sources:
        return False
    return "action" not in query or query["action"] in rule.actions


def _show(rule: LoadedRule) -> dict[str, object]:
    return {
        **rule.conf,
        "id": rule.id,
        "from": list(rule.rule.sources),
        "created_at": rfc3339(rule.conf["created_at"]),
        "last_modified_at": rfc3339(rule.conf["last_modified_at"]),
    }
