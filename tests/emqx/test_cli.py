"""`emqx-gpt emqx …` as it is used: output, exit codes, one line for each fault, no secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from service.cli.emqx import emqx_app
from tests.contract import brokers
from tests.contract.brokers import Broker
from tests.contract.webhook import Webhook
from tests.emqx.conftest import FLOWS, TOKEN


@pytest.fixture(scope="module")
def running() -> Iterator[Broker]:
    with brokers.stand_in() as broker:
        yield broker


@pytest.fixture
def here(
    running: Broker, webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A directory with flows.toml, the settings in the environment, an empty broker."""
    (tmp_path / "flows.toml").write_text(FLOWS)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "EMQX_URL": running.url,
        "EMQX_API_KEY": "key",
        "EMQX_API_SECRET": "secret",
        "PUBLIC_URL": webhook.url,
        "WEBHOOK_TOKEN": f"{TOKEN},older",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    monkeypatch.undo()
    clear(running)


def clear(broker: Broker) -> None:
    with httpx.Client(base_url=f"{broker.url}/api/v5", auth=broker.key) as http:
        for rule in http.get("/rules").json()["data"]:
            http.delete(f"/rules/{rule['id']}").raise_for_status()
        for kind in ("actions", "connectors"):
            for item in http.get(f"/{kind}").json():
                http.delete(f"/{kind}/http:{item['name']}").raise_for_status()


def emqx(*args: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(emqx_app, args, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for secret in (TOKEN, "Traceback"):
        assert secret not in result.stderr
    return result


def test_from_nothing_to_in_step_and_back(here: Path) -> None:
    before = emqx("diff")
    assert before.exit_code == 2
    assert "+ create  connector http:emqx_gpt" in before.stdout
    assert "8 to create." in before.stdout

    applied = emqx("apply", "--yes")
    assert applied.exit_code == 0
    assert "created rule emqx_gpt_reply" in applied.stdout

    after = emqx("diff")
    assert (after.exit_code, after.stdout.splitlines()[-1]) == (0, "EMQX is in step.")
    again = emqx("apply")  # nothing to do, so nobody is asked
    assert (again.exit_code, again.stdout) == (0, "EMQX is in step, and connected.\n")

    removed = emqx("remove", "--yes")
    assert removed.exit_code == 0
    assert removed.stdout.splitlines()[-1] == "deleted connector http:emqx_gpt_ordered"
    assert emqx("remove").stdout == "Nothing of ours is there.\n"


def test_a_changed_flow_is_shown_line_by_line(here: Path) -> None:
    emqx("apply", "--yes")
    (here / "flows.toml").write_text(FLOWS.replace("> 40", "> 50"))
    shown = emqx("diff")
    assert shown.exit_code == 2
    assert "~ change  rule emqx_gpt_alarm" in shown.stdout
    assert "- WHERE (is_num(payload.temperature) and payload.temperature > 40)" in shown.stdout
    assert "+ WHERE (is_num(payload.temperature) and payload.temperature > 50)" in shown.stdout
    steps = json.loads(emqx("diff", "--json").stdout)["steps"]
    changed = [step for step in steps if step["do"] != "leave"]
    assert [(step["do"], step["kind"], step["id"]) for step in changed] == [
        ("change", "rule", "emqx_gpt_alarm")
    ]
    assert changed[0]["fields"][0]["path"] == "sql"


def test_render_writes_what_is_committed_and_prints_it_filled(here: Path) -> None:
    assert emqx("render").stdout == f"wrote {Path('emqx/emqx-gpt.hocon')}\n"
    written = (here / "emqx" / "emqx-gpt.hocon").read_text()
    assert "url = ${PUBLIC_URL}" in written
    assert TOKEN not in written
    filled = emqx("render", "--filled", "--prefix", "other").stdout
    assert f'authorization = "Bearer {TOKEN}"' in filled
    assert "connectors.http.other {" in filled


def test_what_render_filled_prints_is_in_step(here: Path, running: Broker) -> None:
    filled = emqx("render", "--filled").stdout
    httpx.put(
        f"{running.url}/api/v5/configs?mode=merge",
        content=filled.encode(),
        headers={"content-type": "text/plain"},
        auth=running.key,
    ).raise_for_status()
    assert emqx("diff").exit_code == 0


def test_access_control_for_devices(here: Path) -> None:
    """Lines that EMQX's acl.conf takes: deny the internal topics, then allow what flows need."""
    printed = emqx("acl")
    assert printed.exit_code == 0
    lines = [line for line in printed.stdout.splitlines() if not line.startswith("%%")]
    rules = "".join(lines).replace("\n", "")
    assert rules == (
        '{deny, all, all, [  "emqx-gpt/reply/#"]}.'
        '{allow, all, publish, [  "lab/+/ask",  "sensors/+/telemetry",  "boilers/+",'
        '  "cameras/+/snapshot"]}.'
        '{allow, all, subscribe, [  "lab/+/say",  "alerts/+",  "cameras/+/said"]}.'
    )


def test_access_control_names_what_is_watched_and_not_what_the_clock_asks(here: Path) -> None:
    (here / "flows.toml").write_text(
        '[flows.morning]\nevery = "0 7 * * *"\nreply = "cold/report"\n'
        'prompt = "${recent}"\nrecent = { topic = "cold/+/t", for = "12h" }\n'
    )
    printed = emqx("acl").stdout
    assert '{allow, all, publish, [\n  "cold/+/t"\n]}.' in printed
    assert "emqx-gpt/every" not in printed


def test_nobody_to_ask(here: Path) -> None:
    refused = emqx("apply")
    assert refused.exit_code == 1
    assert refused.stderr == "emqx-gpt: nobody to ask here: say --yes\n"
    assert emqx("diff").exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "code", "said"),
    [
        ("EMQX_URL", "http://127.0.0.1:9", 3, "can't be reached"),
        ("EMQX_API_SECRET", "wrong", 4, "does not know the API key"),
        ("EMQX_API_SECRET", "", 1, "EMQX_API_KEY and EMQX_API_SECRET"),
        ("EMQX_URL", "nonsense", 1, "is not a URL"),
        ("WEBHOOK_TOKEN", "", 1, "WEBHOOK_TOKEN is not set"),
        ("WEBHOOK_TOKEN", "to\tk", 1, "HTTP header"),
        ("WEBHOOK_TOKEN", "another", 8, "another WEBHOOK_TOKEN"),
        ("PUBLIC_URL", "http://127.0.0.1:9", 10, "does not reach http://127.0.0.1:9"),
        ("PUBLIC_URL", "http://a/?x=1", 1, "PUBLIC_URL may hold"),
        ("FLOWS", "none.toml", 1, "there is no such file"),
    ],
)
def test_faults_of_apply(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)
    failed = emqx("apply", "--yes", "--wait", "0.3")
    assert failed.exit_code == code, failed.output
    assert said in failed.stderr
    assert failed.stderr.startswith("emqx-gpt: ")


def test_another_token_is_noticed_before_anything_is_made(here: Path, webhook: Webhook) -> None:
    webhook.token = "changed meanwhile"
    failed = emqx("apply", "--yes")
    assert failed.exit_code == 8
    _, done, not_done = failed.stderr.splitlines()
    assert done == "  done: nothing"
    assert not_done.startswith("  not done: create connector http:emqx_gpt, create connector")
    webhook.token = TOKEN
    assert emqx("apply", "--yes").exit_code == 0


def test_a_taken_name(here: Path, running: Broker) -> None:
    body = {"type": "http", "name": "emqx_gpt", "url": "http://127.0.0.1:9"}
    httpx.post(f"{running.url}/api/v5/connectors", json=body, auth=running.key).raise_for_status()
    taken = emqx("apply", "--yes")
    assert taken.exit_code == 7
    assert "connector http:emqx_gpt that is not ours" in taken.stderr
    shown = emqx("diff")
    assert shown.exit_code == 2
    assert "! taken   connector http:emqx_gpt" in shown.stdout
    assert emqx("apply", "--yes", "--prefix", "mine").exit_code == 0


def test_refused_sql(here: Path) -> None:
    where = "nosuch(payload.x) = 1"
    broken = f'[flows.a]\nrequest = "a"\nreply = "b"\nwhere = "{where}"\n'
    (here / "flows.toml").write_text(broken)
    refused = emqx("apply", "--yes")
    assert refused.exit_code == 6
    assert "SQL of rule emqx_gpt_a" in refused.stderr


def test_a_key_that_may_not_configure(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(request: httpx.Request) -> httpx.Response:
        said = {"code": "UNAUTHORIZED_ROLE", "message": "not permitted"}
        return httpx.Response(403, json=said)

    real = httpx.AsyncClient
    monkeypatch.setattr(
        httpx,
        "AsyncClient",
        lambda **options: real(**options, transport=httpx.MockTransport(forbid)),
    )
    refused = emqx("diff")
    assert refused.exit_code == 5
    assert "administrator" in refused.stderr


def test_an_old_broker(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def old(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[{"node": "n", "version": "5.3.1"}])

    real = httpx.AsyncClient
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **options: real(**options, transport=httpx.MockTransport(old))
    )
    refused = emqx("diff")
    assert refused.exit_code == 9
    assert "5.3.1 is too old" in refused.stderr


def test_what_doctor_tells_to_run_can_be_run_as_it_stands(here: Path, webhook: Webhook) -> None:
    """With the program where it lies, and the settings that it was given."""
    settings = here / "my settings.env"
    settings.write_text("EMQX_PREFIX=mine\n")
    program = Path(sys.executable).parent / "emqx-gpt"
    call = [str(program), "--env", settings.name, "emqx", "doctor", "--no-send"]
    environ = os.environ | {"PATH": "/usr/bin:/bin"}
    seen = subprocess.run(call, env=environ, capture_output=True, text=True, check=False)
    told = f"{program} --env 'my settings.env' emqx apply"
    assert f"→ {told}" in seen.stdout, seen.stdout
    subprocess.run(f"{told} --yes", env=environ, shell=True, check=True, capture_output=True)
    seen = subprocess.run(call, env=environ, capture_output=True, text=True, check=False)
    assert told not in seen.stdout


def test_doctor_without_a_model_names_what_is_missing(here: Path, webhook: Webhook) -> None:
    emqx("apply", "--yes")
    seen = emqx("doctor", "--no-send", "--json")
    levels = {item["title"]: item["level"] for item in json.loads(seen.stdout)}
    assert levels["webhook reachable from EMQX (http:emqx_gpt)"] == "ok"
    assert levels["webhook here, token equal"] == "ok"
    assert levels["rules enabled"] == "ok"
    assert levels["in step with flows.toml"] == "ok"
    assert levels["model's key and name, provider openai"] == "fail"
    assert seen.exit_code == 1
