"""What model servers and devices really sent, over real HTTP: one file in `cases/`, one test.

A file is a case as it was reported, and how it is played:

    webhook         what EMQX posts; `id`, `topic`, `payload` …
    model_answers   what the model's server answers, in order; then `more`; then it echoes, or
                    with `repeat` gives its last answer for ever
    flows           flows.toml (default: one chat flow); `{model}`: the server's address,
                    `{other}`: that of a second one, which answers with `other_answers`
    settings        of the service, by their environment names; `{model}` as above
    before          payloads that are asked and answered first, by echoes
    expect          what has to come of it, see `Expected`; all of it is checked

To add a case, add its file. What a file can't say is a test of its own elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.llm.retry import RetryPolicy
from tests.fakes.model import FakeModel
from tests.fakes.model_raw import raw
from tests.fakes.model_wire import Step
from tests.rig import Rig, eventually, rig

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
QUICK = RetryPolicy(inner_first=0.01, outer_first=0.05, outer_cap=0.1, break_first=0.2)
CHAT = """
[flows.chat]
request = "chatgpt/request/${user}"
reply = "chatgpt/response/${user}"
"""


@dataclass(frozen=True)
class Expected:
    """What is looked at; what is None or empty is not."""

    published: list[list[str]] | None = None  # [topic, payload] of all that was published
    includes: list[list[str]] = field(default_factory=list)  # likewise, among others
    absent: list[str] = field(default_factory=list)  # in no payload
    replies: list[str] | None = None  # payloads on topics that are no tool's and no stream's
    state: str = "done"
    error: str | None = None
    told: list[str] = field(default_factory=list)  # parts of the error's message
    attempts: list[str] = field(default_factory=list)  # parts of the attempts' messages
    calls: int | None = None
    other_calls: int | None = None
    # Parts of the calls' bodies: ["1.messages.0.content", value]; "!…" with null: there is none.
    bodies: list[list[Any]] = field(default_factory=list)
    headers: list[list[Any]] = field(default_factory=list)  # likewise: ["0.authorization", null]
    queries: list[str] = field(default_factory=list)  # of the calls, in order
    other_bodies: list[list[Any]] = field(default_factory=list)
    other_ids: int | None = None  # length of the ids of tool calls in its last call
    ready: bool | None = None
    waits: float | None = None  # seconds between the first two calls, at least


def read(path: Path) -> bytes:
    return path.read_bytes()


def step(answer: dict[str, Any]) -> Step:
    headers = answer.get("headers")
    return raw(answer["status"], answer.get("body"), text=answer.get("body_text"), headers=headers)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
async def test_case(path: Path, tmp_path: Path) -> None:
    case = orjson.loads(read(path))
    async with FakeModel() as other, FakeModel() as model:
        places = {"{model}": model.base_url.removesuffix("/v1"), "{other}": other.base_url}
        settings = {"openai_base_url": model.base_url}
        for name, value in case.get("settings", {}).items():
            settings[name.lower()] = filled(value, places)
        database = f"sqlite:///{tmp_path / 'test.db'}"
        flows = filled(case.get("flows", CHAT), places)
        async with rig(database, flows=flows, policy=QUICK, **settings) as house:
            await played(case, house, model, other)


async def played(case: dict[str, Any], house: Rig, model: FakeModel, other: FakeModel) -> None:
    expected = Expected(**case["expect"])
    for number, payload in enumerate(case.get("before", [])):
        webhook = {**case["webhook"], "id": f"before-{number}", "payload": payload}
        assert (await house.webhook(webhook)).status_code == 202
        await house.ended(number + 1)
    model.calls.clear()
    skipped = len(house.broker.mqtt.published)
    model.script(*map(step, [*case.get("model_answers", []), *case.get("more", [])]))
    other.script(*map(step, case.get("other_answers", [])))
    if case.get("repeat"):
        last = step(case["model_answers"][-1])
        model.behave(lambda body: last)
    assert (await house.webhook(case["webhook"])).status_code == 202
    request = await settled(house, expected.state)
    seen = list(house.broker.mqtt.published)[skipped:]
    published = [[one.topic, one.payload.decode()] for one in seen]

    if expected.published is not None:
        assert published == expected.published
    for one in expected.includes:
        assert one in published
    for part in expected.absent:
        assert not [payload for _, payload in published if part in payload]
    if expected.replies is not None:
        replies = [payload for topic, payload in published if "/re" in topic or "/say" in topic]
        assert replies == expected.replies
    error = request["error"] or {"code": None, "message": ""}
    assert error["code"] == expected.error, request
    for part in expected.told:
        assert part in error["message"]
    attempts = " | ".join(attempt["message"] for attempt in request["attempts"])
    for part in expected.attempts:
        assert part in attempts
    if expected.calls is not None:
        assert len(model.calls) == expected.calls
    if expected.other_calls is not None:
        assert len(other.calls) == expected.other_calls
    for where, value in expected.bodies:
        assert at([call.body for call in model.calls], where) == value, where
    if expected.queries:
        assert [call.query for call in model.calls] == expected.queries
    for where, value in expected.other_bodies:
        assert at([call.body for call in other.calls], where) == value, where
    if expected.other_ids is not None:
        sent = orjson.dumps(other.calls[-1].body["messages"])
        ids = re.findall(rb'"(?:id|tool_call_id)":"([^"]*)"', sent)
        assert len(ids) >= 2
        assert {len(one) for one in ids} == {expected.other_ids}
        assert len(set(ids)) * 2 == len(ids)
    for where, value in expected.headers:
        assert at([call.headers for call in model.calls], where) == value, where
    if expected.waits is not None:
        first, second = model.calls[:2]
        assert first.ended is not None
        assert second.started - first.ended >= expected.waits
    if expected.ready is not None:
        answer = await house.http.get("/readyz")
        assert answer.json()["model"]["ok"] is expected.ready, answer.text


async def settled(house: Rig, state: str) -> dict[str, Any]:
    """The newest request, once it is in this state (or in an end that is another)."""

    async def look() -> dict[str, Any] | None:
        newest = (await house.requests(limit=1))[0]
        request = await house.request(newest["id"])
        if state == "queued":  # waiting for its provider
            ready = (await house.http.get("/readyz")).json()
            return request if request["attempts"] and not ready["model"]["ok"] else None
        return request if request["ended_at"] is not None else None

    request = dict(await eventually(look))
    assert request["state"] == state or state == "queued", request
    return request


def filled(text: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        text = text.replace(name, value)
    return text


def at(value: Any, path: str) -> Any:
    """What stands at "0.messages.1.role"; None where nothing does."""
    for name in path.split("."):
        if isinstance(value, list):
            value = value[int(name)] if int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value
