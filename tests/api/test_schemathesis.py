"""Whatever fits the document (and what does not) gets an answer that is in the document."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode

from service.demo.standin.broker import StandIn
from service.emqx.config_file import render_filled
from tests.fakes.model import FakeModel
from tests.process import Process
from tests.rig import OPERATOR, WEBHOOK, load_flows

EXAMPLES = 12  # of each operation, and as many that do not fit
ENDLESS = "/events"  # no more of it is read than its head


def play(url: str) -> dict[tuple[str, str], int]:
    """Every operation over real HTTP; how many calls of each."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    called: dict[tuple[str, str], int] = {}

    def run(operation: Any, mode: GenerationMode) -> None:
        token = WEBHOOK if operation.path == "/webhook" else OPERATOR
        documented = set(operation.definition.raw["responses"])

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.seed(random.randrange(2**32))
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            for name, real in (("flow", "chat"), ("name", "chat")):
                if name in case.path_parameters and random.random() < 0.5:
                    case.path_parameters[name] = real
            headers = {"authorization": f"Bearer {token}"}
            try:
                if operation.path == ENDLESS:
                    answer = requests.get(url + ENDLESS, headers=headers, timeout=60, stream=True)
                    answer.close()
                else:
                    answer = case.call(base_url=url, headers=headers, timeout=60)
            except requests.RequestException as error:
                raise AssertionError(case.as_curl_command()) from error
            status = answer.status_code
            key = (operation.method.upper(), operation.path)
            called[key] = called.get(key, 0) + 1
            assert status < 500 or status == 503, (case.as_curl_command(), answer.text)
            # A path that was made into another one, as /requests/ is.
            other = status in (404, 405, 307, 414, 431)
            assert str(status) in documented or other, (case.as_curl_command(), answer.text)
            if status >= 400:
                assert set(answer.json()["error"]) == {"code", "message"}

        check()

    for found in schema.get_all_operations():
        operation = found.ok()
        run(operation, GenerationMode.POSITIVE)
        if operation.path.count("{") or operation.definition.raw.get("requestBody"):
            run(operation, GenerationMode.NEGATIVE)
    return called


async def test_no_call_breaks_the_service(tmp_path: Path) -> None:
    async with StandIn() as broker, FakeModel() as model:
        process = Process(tmp_path, broker, model)
        await broker.load(render_filled(load_flows(None), process.url, WEBHOOK))
        await process.start()
        try:
            called = await asyncio.to_thread(play, process.url)
        finally:
            await process.end(signal.SIGTERM)
    assert len(called) >= 26
    assert min(called.values()) >= 1
    assert "Traceback" not in process.log.read_text()
