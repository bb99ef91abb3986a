"""docs/metrics.md names each metric with its labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry

from tests.metrics.used import used

ROOT = Path(__file__).parents[2]


def registered(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Ours, by the names that are documented, with their labels."""
    found: dict[str, set[str]] = {}
    for metric in registry.collect():
        if metric.name.startswith("emqx_gpt_"):
            name = metric.name + ("_total" if metric.type == "counter" else "")
            found[name] = {label for one in metric.samples for label in one.labels} - {"le"}
    return found


def documented() -> dict[str, set[str]]:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `emqx_gpt_")]
    return {
        name: set(labels[1:-1].split(",")) if labels else set()
        for row in rows
        for name, labels in re.findall(r"`(emqx_gpt_\w+)(\{[^}]*\})?`", row)
    }


def test_each_alert_is_documented() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rules = yaml.safe_load((ROOT / "prometheus" / "alerts.yml").read_text("utf-8"))
    named = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert re.findall(r"`(EmqxGpt\w+)`", text) == named


async def test_each_metric_is_documented(database: str, quick: None) -> None:
    async with used(database) as house:
        await house.service.scrape()
        assert documented() == registered(house.service.metrics.registry)
