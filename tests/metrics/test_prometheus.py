"""The dashboard and the alert rules, asked of a real Prometheus that watches a service at work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.metrics.prometheus import PROGRAM, Prometheus, prometheus
from tests.metrics.used import unused, use
from tests.rig import ROOT, Rig, eventually

DASHBOARD = json.loads((ROOT / "grafana" / "emqx-gpt.json").read_text("utf-8"))
RULES = yaml.safe_load((ROOT / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"][0]
VARIABLES = {
    "$__rate_interval": "10s",
    "$__range": "1m",
    "$job": ".*",
    "$instance": ".*",
    "$flow": ".*",
}
_SELECTOR = re.compile(r"\b(?:emqx_gpt_\w+|up)\b(?:\{[^}]*\})?")


def expressions() -> Iterator[tuple[str, str]]:
    """Title of the panel, and what it asks."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], filled(target["expr"])


def filled(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def selectors() -> set[str]:
    """What the alert rules look at; comparisons left out, since most are calm."""
    found = {one for rule in RULES["rules"] for one in _SELECTOR.findall(rule["expr"])}
    by = re.findall(r"by \(([^)]*)\)", " ".join(rule["expr"] for rule in RULES["rules"]))
    return found - {name for names in by for name in names.split(", ")}


@contextlib.asynccontextmanager
async def load(house: Rig) -> AsyncIterator[None]:
    """Questions, a few each second."""

    async def ask() -> None:
        number = 0
        while True:
            number += 1
            body = {"id": f"load-{number}", "topic": f"chat/u{number % 7}/ask", "payload": "hi"}
            await house.webhook(body | {"flow": "chat"})
            await asyncio.sleep(0.1)

    task = asyncio.create_task(ask())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def empty(server: Prometheus, asked: dict[str, str]) -> dict[str, str]:
    """Those of the expressions, by what is asked, that give no data."""
    return {what: expr for what, expr in asked.items() if not await server.query(expr)}


@pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed")
async def test_every_expression_gives_data(database: str, tmp_path: Path, quick: None) -> None:
    async with unused(database) as house, prometheus(tmp_path, house.port) as server:

        async def scraped() -> bool:
            return bool(await server.query("emqx_gpt_backlog"))

        await eventually(scraped)
        await use(house)
        async with load(house):
            asked = {f"{title}: {expr}": expr for title, expr in expressions()}
            assert len(asked) > 30
            asked |= {f"alert: {one}": one for one in selectors()}
            for panel in DASHBOARD["templating"]["list"]:
                if panel["type"] == "query":
                    match = re.fullmatch(r"label_values\((.*), (\w+)\)", panel["query"]["query"])
                    assert match is not None
                    asked[f"variable: {panel['name']}"] = (
                        f"count by ({match[2]}) ({filled(match[1])})"
                    )
            missing = asked

            async def all_come() -> bool:
                nonlocal missing
                missing = await empty(server, missing)
                return not missing

            try:
                await eventually(all_come, 60)
            except AssertionError:
                raise AssertionError(f"no data for {missing}") from None
            await rules_work(server)
        assert await server.query("emqx_gpt_no_such_thing") == []
        (target,) = (await server.get("targets"))["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")


async def rules_work(server: Prometheus) -> None:
    """All are evaluated; two see what happened, and say it in whole sentences."""

    async def seen() -> dict[str, Any] | None:
        (group,) = (await server.get("rules"))["groups"]
        assert [rule["name"] for rule in group["rules"]] == [one["alert"] for one in RULES["rules"]]
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
        states = {rule["name"]: rule for rule in group["rules"] if rule["state"] != "inactive"}
        wanted = {"EmqxGptCircuitOpen", "EmqxGptRefused"}
        return states if wanted <= set(states) else None

    states = await eventually(seen)
    assert states["EmqxGptRefused"]["state"] == "firing"
    assert states["EmqxGptCircuitOpen"]["state"] == "pending"  # for 5 minutes
    assert "EmqxGptDown" not in states
    for rule in states.values():
        for alert in rule["alerts"]:
            for text in alert["annotations"].values():
                assert "error expanding" not in text
                assert "{{" not in text


def test_the_dashboard_holds_together() -> None:
    """Ids are unique, panels do not overlap, and all ask the data source that is chosen."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all(one["datasource"]["uid"] == "${datasource}" for one in panel["targets"])
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "flow"]
