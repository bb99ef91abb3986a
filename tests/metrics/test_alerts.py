"""prometheus/alerts.yml: each alert fires when it should, and not when it should not."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "prometheus" / "alerts.yml"
PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed"
)

Series = dict[str, str]
"""A sample a minute, as promtool writes it: 0+2x30 is 0, 2, 4, … 60."""


@dataclass(frozen=True)
class Case:
    """At minute `at` the alert fires with these labels in one world, and not in the calm ones."""

    at: int
    fires: Series
    summary: str
    labels: dict[str, str]
    calm: tuple[Series, ...]
    severity: str = "critical"
    job: dict[str, str] = field(default_factory=lambda: {"job": "emqx-gpt"})


def of(name: str, **labels: str) -> str:
    """A series of ours."""
    given = {"job": "emqx-gpt", "instance": "a:8000", **labels}
    listed = ",".join(f'{label}="{value}"' for label, value in given.items())
    return f"{name}{{{listed}}}"


def calls(failed: str, well: str) -> Series:
    model = {"provider": "openai", "model": "m"}
    return {
        of("emqx_gpt_model_calls_total", result="model_timeout", **model): failed,
        of("emqx_gpt_model_calls_total", result="ok", **model): well,
    }


def ends(state: str, bad: str, well: str) -> Series:
    return {
        of("emqx_gpt_ended_total", flow="chat", state=state, error="x"): bad,
        of("emqx_gpt_ended_total", flow="chat", state="done", error=""): well,
    }


def nobody(undelivered: str, well: str) -> Series:
    return {
        of("emqx_gpt_undelivered_total", flow="chat"): undelivered,
        of("emqx_gpt_ended_total", flow="chat", state="done", error=""): well,
    }


def refused(code: str, values: str) -> Series:
    return {of("emqx_gpt_refused_total", code=code): values}


def budget(unit: str, flow: str, used: str, limit: str) -> Series:
    return {
        of(f"emqx_gpt_budget_{unit}_used", flow=flow): used,
        of(f"emqx_gpt_budget_{unit}_limit", flow=flow): limit,
    }


MODEL = {"provider": "openai", "model": "m"}
UP = of("up")
CASES = {
    "EmqxGptDown": Case(
        8, {UP: "1x2 0x20"}, "emqx-gpt at a:8000 does not answer", {"instance": "a:8000"},
        ({UP: "1x20"}, {UP: "1x6 0 1x20"}),
    ),
    "EmqxGptBacklogOld": Case(
        6, {of("emqx_gpt_backlog_age_seconds"): "400x20"}, "A request waits for 6m 40s", {},
        ({of("emqx_gpt_backlog_age_seconds"): "200x20"},
         {of("emqx_gpt_backlog_age_seconds"): "0x4 400 0x20"}),
    ),
    "EmqxGptModelFailing": Case(
        25, calls("0+2x40", "0+1x40"), "More than half of the calls to m fail", MODEL,
        (calls("0+2x40", "0+3x40"), calls("0x20 1x20", "0x40")), "warning",
    ),
    "EmqxGptCircuitOpen": Case(
        7, {of("emqx_gpt_circuit_open", **MODEL): "1x20"}, "Model m of openai is left alone",
        MODEL,
        ({of("emqx_gpt_circuit_open", **MODEL): "0x20"},
         {of("emqx_gpt_circuit_open", **MODEL): "0x4 1x2 0x20"}),
    ),
    "EmqxGptRequestsFail": Case(
        30, ends("expired", "0+1x40", "0+2x40"),
        "More than a tenth of the requests of flow chat get no answer", {"flow": "chat"},
        (ends("failed", "0+1x40", "0+20x40"), ends("failed", "0x28 2x20", "0x40"),
         ends("ignored", "0+9x40", "0+1x40")),
    ),
    "EmqxGptUndelivered": Case(
        30, nobody("0+1x40", "0+2x40"), "Nobody hears a fifth of the replies of flow chat",
        {"flow": "chat"}, (nobody("0+1x40", "0+9x40"), nobody("0x28 3x20", "0x28 3x20")),
        "warning",
    ),
    "EmqxGptGivenUp": Case(
        4, {of("emqx_gpt_given_up"): "0 0 2x20"}, "EMQX lost messages on their way to emqx-gpt",
        {}, ({of("emqx_gpt_given_up"): "2x20"}, {of("emqx_gpt_given_up"): "0x20"}),
    ),
    "EmqxGptRefused": Case(
        4, refused("unauthorized", "0 0 1x20"), "The webhook refuses messages (unauthorized)",
        {"code": "unauthorized"},
        (refused("unauthorized", "7x20"), refused("backlog_full", "0+5x20")),
    ),
    "EmqxGptCantStore": Case(
        12, refused("store_busy", "0+5x20"), "emqx-gpt can't take messages now", {},
        (refused("store_busy", "0x8 9x20"), refused("unauthorized", "0+5x20")),
    ),
    "EmqxGptBrokerAway": Case(
        12, {of("emqx_gpt_retries_total", how="publish", code="broker_timeout"): "0+3x20"},
        "EMQX does not take replies", {},
        ({of("emqx_gpt_retries_total", how="later", code="model_timeout"): "0+3x20"},
         {of("emqx_gpt_retries_total", how="publish", code="broker_timeout"): "0x8 1x20"}),
    ),
    "EmqxGptFlowsRefused": Case(
        5, {of("emqx_gpt_flows_refused"): "0 1x20"}, "A changed flows.toml is refused", {},
        ({of("emqx_gpt_flows_refused"): "0x20"}, {of("emqx_gpt_flows_refused"): "0 1 0x20"}),
        "warning",
    ),
    "EmqxGptMoneyNearlySpent": Case(
        5, budget("dollars", "", "85x20", "100x20"), "85% of the money of today is spent", {},
        (budget("dollars", "", "70x20", "100x20"),), "warning",
    ),
    "EmqxGptTokensNearlySpent": Case(
        5, budget("tokens", "chat", "900x20", "1000x20"), "90% of the tokens of today are used",
        {"flow": "chat"}, (budget("tokens", "chat", "10x20", "1000x20"),), "warning",
    ),
}  # fmt: skip


def rules() -> list[dict[str, Any]]:
    return list(yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"])


def promtool(*words: object) -> None:
    command = [str(PROMTOOL), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_are_right() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", ROOT / "prometheus" / "prometheus.yml")


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    assert [rule["alert"] for rule in rules()] == list(CASES)
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description", "action"}, rule["alert"]
        assert all(len(text) > 20 for text in rule["annotations"].values())
        assert rule["labels"]["severity"] in ("critical", "warning")


def world(name: str, case: Case, series: Series, fires: bool) -> dict[str, Any]:
    """A test of promtool: these series, and whether the alert fires at its minute."""
    expected = {
        "exp_labels": {"severity": case.severity, **case.job, **case.labels},
        "exp_annotations": {"summary": case.summary},
    }
    return {
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "alert_rule_test": [
            {
                "alertname": name,
                "eval_time": f"{case.at}m",
                **({"exp_alerts": [expected]} if fires else {}),
            }
        ],
    }


@pytest.mark.parametrize("name", CASES)
def test_it_fires_and_does_not(name: str, tmp_path: Path) -> None:
    """promtool compares all annotations; the long ones are left out, so that texts may change."""
    document = yaml.safe_load(RULES.read_text("utf-8"))
    for rule in document["groups"][0]["rules"]:
        rule["annotations"] = {"summary": rule["annotations"]["summary"]}
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(document))
    case = CASES[name]
    worlds = [world(name, case, case.fires, True)]
    worlds += [world(name, case, series, False) for series in case.calm]
    tests = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": worlds}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", tmp_path / "test.yml")


def test_no_address_at_all_is_down_too(tmp_path: Path) -> None:
    summary = "emqx-gpt at every address does not answer"
    case = Case(8, {}, summary, {}, ())
    other = {'up{job="other",instance="b:1"}': "1x20"}
    document = yaml.safe_load(RULES.read_text("utf-8"))
    for rule in document["groups"][0]["rules"]:
        rule["annotations"] = {"summary": rule["annotations"]["summary"]}
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(document))
    tests = {"rule_files": ["alerts.yml"], "tests": [world("EmqxGptDown", case, other, True)]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    promtool("test", "rules", tmp_path / "test.yml")
