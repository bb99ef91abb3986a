"""EMQX 5.9 and later: what an action gives up goes to a second one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.emqx.apply import apply
from service.emqx.look import compare
from service.emqx.management_api import EmqxAdmin
from service.emqx.remove import remove
from service.emqx.resources import Desired

Build = Callable[..., Desired]


class Broker:
    """Keeps resources as EMQX 6.2.2 does, as far as apply looks at them."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {"connectors": {}, "actions": {}, "rules": {}}
        self.made: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v5")
        body = json.loads(request.content) if request.content else {}
        if path == "/nodes":
            return httpx.Response(200, json=[{"node": "n", "version": "6.2.2"}])
        if path == "/connectors_probe":
            return httpx.Response(204)
        if path == "/rule_test":
            return httpx.Response(200, json={})
        found = re.fullmatch(r"/(connectors|actions|rules)(?:/([^/]+))?", path)
        assert found is not None, path
        kind, ident = found[1], found[2]
        kept = self.kept[kind]
        if ident is None and request.method == "GET":
            return httpx.Response(200, json={"data": list(kept.values())})
        if request.method == "POST":
            ident = body.get("id") or f"{body['type']}:{body['name']}"
            self.made.append(ident)
        if request.method in ("POST", "PUT"):
            for each in body.get("fallback_actions", ()):
                if each["kind"] == "reference":
                    assert f"{each['type']}:{each['name']}" in kept, "made before its referrer"
            kept[ident] = {**body, "id": ident, "status": "connected", "namespace": None}
            return httpx.Response(201, json=kept[ident])
        if ident not in kept:
            return httpx.Response(404, json={"code": "NOT_FOUND", "message": "none"})
        if request.method == "DELETE":
            del kept[ident]
            return httpx.Response(204)
        return httpx.Response(200, json=kept[ident])


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    real = httpx.AsyncClient
    monkeypatch.setattr(
        httpx,
        "AsyncClient",
        lambda **options: real(**options, transport=httpx.MockTransport(broker)),
    )
    return broker


async def test_apply_makes_it_and_keeps_what_somebody_set_there(
    broker: Broker, build: Build
) -> None:
    actions = broker.kept["actions"]
    async with EmqxAdmin("http://emqx:18083", ("key", "secret")) as admin:
        await apply(admin, build(), check_webhook=False)
        assert broker.made[2:6] == [
            "http:emqx_gpt_again",
            "http:emqx_gpt",
            "http:emqx_gpt_ordered_again",
            "http:emqx_gpt_ordered",
        ]
        assert (await compare(admin, build())).in_step
        theirs = {"kind": "republish", "args": {"topic": "lost"}}
        actions["http:emqx_gpt"]["fallback_actions"].insert(0, theirs)
        actions["http:emqx_gpt_ordered"]["fallback_actions"] = [theirs]
        actions["http:emqx_gpt"]["parameters"]["max_retries"] = 7
        todo = await compare(admin, build())
        assert [(step.ident, step.fields[0].path) for step in todo.pending] == [
            ("http:emqx_gpt_ordered", "fallback_actions")
        ]
        await apply(admin, build(), check_webhook=False)
        ours = {"kind": "reference", "type": "http", "name": "emqx_gpt_ordered_again"}
        assert actions["http:emqx_gpt_ordered"]["fallback_actions"] == [theirs, ours]
        assert actions["http:emqx_gpt"]["parameters"]["max_retries"] == 7
        done = (await remove(admin)).done
    assert len(done) == 4 + 4 + 2
    assert broker.kept == {"connectors": {}, "actions": {}, "rules": {}}
    # An action goes before the one that it refers to.
    assert done.index("deleted action http:emqx_gpt") < done.index(
        "deleted action http:emqx_gpt_again"
    )
