"""The REST side's connectors and actions, and the configuration as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from service.demo.standin import hocon, refusal, resource_schema
from service.demo.standin.action import Connector, HttpAction
from service.demo.standin.published import NODE
from service.demo.standin.publishing import parse_json
from service.demo.standin.raw_http import Pool, Target
from service.demo.standin.resource_config import Settings
from service.demo.standin.resources import EmptyConfiguration, Missing, Refused, Resources

Handler = Callable[[Request], Awaitable[Response]]
_NO_BODY = 204


class Handlers:
    """One handler for each call. What they raise is turned into answers by `rest`."""

    def __init__(self, resources: Resources, others: Mapping[str, Resources]) -> None:
        """`others` are the namespaces that the global lists span, unless asked not to."""
        self._resources = resources
        self._others = others

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("/configs", "PUT", self.put_configs),
            ("/configs", "GET", self.get_configs),
            ("/connectors", "GET", self.connectors),
            ("/connectors", "POST", self.create_connector),
            ("/connectors_probe", "POST", self.probe_connector),
            ("/connectors/{id}", "GET", self.connector),
            ("/connectors/{id}", "PUT", self.update_connector),
            ("/connectors/{id}", "DELETE", self.delete_connector),
            ("/connectors/{id}/enable/{on}", "PUT", self.enable_connector),
            ("/actions", "GET", self.actions),
            ("/actions", "POST", self.create_action),
            ("/actions/{id}", "GET", self.action),
            ("/actions/{id}", "PUT", self.update_action),
            ("/actions/{id}", "DELETE", self.delete_action),
            ("/actions/{id}/enable/{on}", "PUT", self.enable_action),
            ("/actions/{id}/metrics", "GET", self.action_metrics),
            ("/actions/{id}/metrics/reset", "PUT", self.reset_action_metrics),
        ]

    # the configuration as a whole

    async def put_configs(self, request: Request) -> Response:
        text = (await request.body()).decode("utf-8", "replace")
        mode = request.query_params.get("mode", "merge")
        if mode not in ("merge", "replace"):
            raise Refused(f"mode {mode!r} is not one of merge, replace")
        try:
            await self._resources.load(text, replace=mode == "replace")
        except Refused as exc:
            said = json.dumps({"errors": exc.errors}, ensure_ascii=False)
            return PlainTextResponse(said, 400)
        except EmptyConfiguration:
            message = "error, function_clause, []"
            return JSONResponse({"code": "INTERNAL_ERROR", "message": message}, 500)
        except refusal.Invalid as exc:
            message = (
                "throw, {emqx_conf_schema,[#{kind => validation_error,"
                f'path => "{exc.path}",reason => {exc.reason}}}]}}, []'
            )
            return JSONResponse({"code": "INTERNAL_ERROR", "message": message}, 500)
        return Response(status_code=200)

    async def get_configs(self, request: Request) -> Response:
        tree = {
            "connectors": {"http": dict(self._resources.connector_confs())},
            "actions": {"http": dict(self._resources.action_confs())},
            "rule_engine": {"rules": dict(self._resources.rule_confs())},
        }
        key = request.query_params.get("key")
        if key is not None and key not in tree:
            raise Missing(f"no configuration {key!r} in this stand-in")
        shown = resource_schema.masked({key: tree[key]} if key else tree)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(shown)
        return PlainTextResponse(hocon.dump(shown))

    # connectors

    async def connectors(self, request: Request) -> Response:
        return JSONResponse(
            [
                _show_connector(connector, resources)
                for resources in spanned(request, self._resources, self._others)
                for connector in resources.connectors.values()
            ]
        )

    async def connector(self, request: Request) -> Response:
        return JSONResponse(_show_connector(self._connector_of(request), self._resources))

    async def create_connector(self, request: Request) -> Response:
        name, conf = await _new(request, "post_connector", self._resources.check_connector)
        if name in self._resources.connectors:
            raise Refused("connector already exists", "ALREADY_EXISTS")
        await self._resources.put_connector(name, conf)
        return JSONResponse(_show_connector(self._resources.connectors[name], self._resources), 201)

    async def update_connector(self, request: Request) -> Response:
        connector = self._connector_of(request)
        body = resource_schema.unmasked(await read_object(request), connector.conf)
        await self._resources.put_connector(
            connector.name, self._resources.check_connector(body, "root")
        )
        return JSONResponse(
            _show_connector(self._resources.connectors[connector.name], self._resources)
        )

    async def delete_connector(self, request: Request) -> Response:
        await self._resources.delete_connector(self._connector_of(request).name)
        return Response(status_code=_NO_BODY)

    async def enable_connector(self, request: Request) -> Response:
        connector = self._connector_of(request)
        await self._resources.put_connector(
            connector.name, Settings(connector.conf, enable=_on(request))
        )
        return Response(status_code=_NO_BODY)

    async def probe_connector(self, request: Request) -> Response:
        _, conf = await _new(request, "post_connector", self._resources.check_connector)
        target = Target.parse(str(conf["url"]))
        pool = Pool(target, size=1, pipelining=1, timeout=5.0, by_hash=False)
        try:
            reached = await pool.check()
        finally:
            await pool.close()
        if reached:
            return Response(status_code=_NO_BODY)
        message = f'{{refused,"{target.authority}"}}'
        return JSONResponse({"code": "TEST_FAILED", "message": message}, 400)

    def _connector_of(self, request: Request) -> Connector:
        return self._resources.connector(_name(request, "connector"))

    # actions

    async def actions(self, request: Request) -> Response:
        return JSONResponse(
            [
                _show_action(action, resources)
                for resources in spanned(request, self._resources, self._others)
                for action in resources.actions.values()
            ]
        )

    async def action(self, request: Request) -> Response:
        return JSONResponse(_show_action(self._action_of(request), self._resources))

    async def create_action(self, request: Request) -> Response:
        name, conf = await _new(request, "post_bridge_v2", self._resources.check_action)
        if name in self._resources.actions:
            raise Refused("bridge already exists", "ALREADY_EXISTS")
        await self._resources.put_action(name, conf)
        return JSONResponse(_show_action(self._resources.actions[name], self._resources), 201)

    async def update_action(self, request: Request) -> Response:
        action = self._action_of(request)
        body = resource_schema.unmasked(await read_object(request), action.conf)
        conf = self._resources.check_action(body, "root")
        await self._resources.put_action(action.name, conf, keep_age=False)
        return JSONResponse(_show_action(self._resources.actions[action.name], self._resources))

    async def delete_action(self, request: Request) -> Response:
        name = _name(request, "action")
        if request.query_params.get("also_delete_dep_actions") == "true":
            for rule_id in self._resources.rules_of(name):
                rule = self._resources.rule(rule_id)
                kept = [item for item in rule.actions if item != f"http:{name}"]
                self._resources.put_rule(rule_id, Settings(rule.conf, actions=kept))
        await self._resources.delete_action(name)
        return Response(status_code=_NO_BODY)

    async def enable_action(self, request: Request) -> Response:
        action = self._action_of(request)
        await self._resources.put_action(action.name, Settings(action.conf, enable=_on(request)))
        return Response(status_code=_NO_BODY)

    async def action_metrics(self, request: Request) -> Response:
        found = self._resources.actions.get(_name(request, "action"))
        metrics = HttpAction.no_metrics() if found is None else found.metrics()
        nodes = [{"node": NODE, "metrics": metrics}]
        return JSONResponse({"metrics": metrics, "node_metrics": nodes})

    async def reset_action_metrics(self, request: Request) -> Response:
        self._action_of(request).reset_metrics()
        return Response(status_code=_NO_BODY)

    def _action_of(self, request: Request) -> HttpAction:
        return self._resources.action(_name(request, "action"))


def namespaced(resources: Resources) -> dict[str, object]:
    """What EMQX 6 tells of a resource's namespace."""
    return {"namespace": resources.namespace} if resources.newer else {}


def spanned(
    request: Request, resources: Resources, others: Mapping[str, Resources]
) -> list[Resources]:
    """Whose resources a list shows: with a global key those of all namespaces, as in EMQX 6."""
    if resources.namespace is not None or request.query_params.get("only_global") == "true":
        return [resources]
    return [resources, *others.values()]


def _show_connector(connector: Connector, resources: Resources) -> object:
    used = [action.name for action in resources.actions.values() if action.connector is connector]
    status = {"status": connector.status}
    if connector.status_reason:
        status["status_reason"] = connector.status_reason
    return resource_schema.masked(
        {
            **connector.conf,
            "name": connector.name,
            "type": "http",
            "actions": sorted(used),
            "sources": [],
            **namespaced(resources),
            **status,
            "node_status": [{"node": NODE, **status}],
        }
    )


def _show_action(action: HttpAction, resources: Resources) -> object:
    status = action.status
    reason = action.status_reason
    return resource_schema.masked(
        {
            **action.conf,
            "name": action.name,
            "type": "http",
            **namespaced(resources),
            "rules": resources.rules_of(action.name),
            "status": status,
            "status_reason": reason,
            "error": reason,
            "node_status": [{"node": NODE, "status": status, "status_reason": reason}],
        }
    )


async def read_object(request: Request) -> Mapping[str, object]:
    """The body. Raises NotJson, and Invalid when it is no object."""
    body = parse_json(await request.body())
    if not isinstance(body, Mapping):
        raise refusal.Invalid("root", "expected an object", body)
    return body


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_IDENTITY = ("type", "name")


async def _new(request: Request, kind: str, check: Callable[..., Settings]) -> tuple[str, Settings]:
    """Name and configuration of a POST. Raises Invalid, as EMQX words it for `kind`."""
    body = await read_object(request)
    if "type" in body and body["type"] != "http":
        word = "bridge" if kind == "post_bridge_v2" else "connector"
        raise refusal.Invalid("root", f"unknown {word} type", body["type"], field_name="type")
    try:
        for key in _IDENTITY:
            if body.get(key) is None:
                raise refusal.Invalid(f"root.{key}", "required_field")
        checked = check(body, "root", more=_IDENTITY)
    except refusal.Invalid as exc:
        if exc.path is not None:
            exc.more["matched_type"] = f"bridge_http:{kind}"
        raise
    name = str(body["name"])
    if not _NAME.fullmatch(name):
        raise refusal.Invalid(
            None,
            "Invalid name format. The name must begin with a letter or number (0-9, a-z, A-Z) and"
            f" can only include underscores and hyphens as non-initial characters. Got: {name}",
        )
    if len(name) >= 255:
        raise refusal.Invalid(None, "Name length must be less than 255")
    return name, checked


def _name(request: Request, what: str) -> str:
    """The name in `http:name`. Raises Missing."""
    ident: str = request.path_params["id"]
    kind, colon, name = ident.partition(":")
    if not colon:
        raise Missing(
            f"Invalid {what} ID, should be of pattern {{type}}:{{name}}, but got: {ident}"
        )
    if kind != "http":
        raise Missing(
            f"{what.capitalize()} lookup failed: {what} named '{name}' of type {kind} does not"
            " exist."
        )
    return name


def _on(request: Request) -> bool:
    on: str = request.path_params["on"]
    if on not in ("true", "false"):
        raise Missing("Not Found")
    return on == "true"
