"""What a broker, a device or a person can get wrong, and what they are told."""

from __future__ import annotations

import json

import pytest

from tests.fakes.model import hang
from tests.rig import ROOT, message, rig

FLOWS_FILE = (ROOT / "flows.toml").read_text()
TOPIC = "chatgpt/request/ada"
RECORDINGS = json.loads((ROOT / "tests/recordings/webhooks.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("headers", "words"),
    [({}, "missing"), ({"authorization": "Bearer nonsense"}, "wrong")],
)
async def test_a_wrong_or_missing_token_is_401(database, headers, words):
    async with rig(database) as house:
        del house.http.headers["authorization"]
        for method, path in (("POST", "/webhook"), ("GET", "/requests"), ("POST", "/ask/chat")):
            answer = await house.http.request(method, path, headers=headers, content=b"{}")
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (401, "unauthorized")
            assert words in error["message"]


async def test_two_tokens_are_both_valid_during_rotation(database):
    async with rig(database, webhook_token="old, new") as house:
        for number, token in enumerate(("old", "new")):
            body = {"id": str(number), "topic": TOPIC, "payload": "x"}
            answer = await house.webhook(body, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 202


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no json", "not_json"),
        (b"", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[1]", "not_an_object"),
        (b'{"id": "1"}', "no_topic"),
        (b'{"id": "1", "topic": 5}', "no_topic"),
        (b'{"topic": "a"}', "no_id"),
    ],
)
async def test_what_can_never_become_a_request_is_400_with_the_reason(database, body, code):
    async with rig(database) as house:
        answer = await house.webhook(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        assert await house.requests() == []


async def test_a_body_over_max_body_is_413(database):
    async with rig(database, max_body=1000) as house:
        answer = await house.webhook({"id": "1", "topic": TOPIC, "payload": "x" * 1000})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")

        async def chunks():
            for _ in range(20):
                yield b"x" * 100

        headers = {"authorization": "Bearer webhook-token"}
        answer = await house.http.post("/webhook", content=chunks(), headers=headers)
        assert answer.status_code == 413


@pytest.mark.parametrize("body", [{"topic": "nobody/knows"}, {"topic": TOPIC, "flow": "gone"}])
async def test_an_unknown_topic_or_flow_is_stored_and_ends_as_a_dead_letter(database, body):
    async with rig(database) as house:
        answer = await house.webhook({"id": "1", "payload": "x", **body})
        assert answer.status_code == 202
        (request,) = await house.requests()
        assert request["state"] == "queued"  # another process may know it
        await house.move(3_600_000)
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("failed", "flow_unknown")


async def test_an_empty_payload_is_ignored(database):
    async with rig(database) as house:
        await house.webhook({"id": "1", "topic": TOPIC, "payload": "", "flow": "chat"})
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("ignored", "empty")
        assert house.model.calls == []


async def test_an_undecodable_payload_is_told_on_the_error_topic(database):
    async with rig(database) as house, house.mqtt("chatgpt/response/ada") as ada:
        await ada.publish(TOPIC, b"\xff\xfe\x00")
        topic, payload = await message(ada)
        assert topic == "chatgpt/response/ada"
        assert payload == b"No answer: the payload is not UTF-8 text."
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("failed", "undecodable")
        assert house.broker.mqtt.published[-1].properties["User-Property"]["error"] == "undecodable"


async def test_odd_texts_are_taken_and_end(database):
    texts = ["NUL \0 inside", "\x01" * 1_000_000, '"' * 500_000, "𝄞 émoji 😀"]
    flows = FLOWS_FILE.replace("[flows.chat]", "[flows.chat]\nmax_input = 2000000")
    async with rig(database, flows=flows, max_answer=4_000_000) as house:
        for number, text in enumerate(texts):
            body = {"id": f"m{number}", "topic": TOPIC, "payload": text, "flow": "chat"}
            answer = await house.webhook(json.dumps(body).encode())
            assert answer.status_code == 202, answer.text
        lone = b'{"id": "lone \\ud800", "topic": "chatgpt/request/\\ud800", "payload": "\\udfff"}'
        assert (await house.webhook(lone)).status_code == 202
        ends = await house.ended(len(texts) + 1)
        assert sorted(one["state"] for one in ends) == ["done"] * 4 + ["failed"]
        asked = sorted(
            (call.body["messages"][-1]["content"] for call in house.model.calls), key=len
        )
        assert asked == sorted(texts, key=len)


async def test_every_recording_of_a_real_broker_is_taken(database):
    async with rig(database) as house:
        for recording in RECORDINGS:
            answer = await house.webhook(recording["body"].encode())
            assert answer.status_code == 202, recording["title"]
        for recording in RECORDINGS:
            answer = await house.webhook(recording["body"].encode())
            assert answer.json() == {"accepted": 0, "duplicates": 1}, recording["title"]
        assert len(await house.requests()) == len(RECORDINGS)


async def test_the_same_message_twice_is_one_request(database):
    body = {"id": "same", "topic": TOPIC, "payload": "x", "flow": "chat"}
    async with rig(database) as house:
        assert (await house.webhook(body)).json() == {"accepted": 1, "duplicates": 0}
        assert (await house.webhook(body)).json() == {"accepted": 0, "duplicates": 1}
        await house.ended()
        assert len(house.model.calls) == 1


async def test_a_full_backlog_is_503_with_retry_after(database):

    async with rig(database, max_backlog=2, max_concurrency=1) as house:
        house.model.behave(lambda body: hang())
        codes = []
        for number in range(4):
            body = {"id": str(number), "topic": TOPIC, "payload": "x", "flow": "chat"}
            answer = await house.webhook(body)
            codes.append(answer.status_code)
        assert codes == [202, 202, 503, 503]
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "backlog_full"


async def test_unknown_paths_and_methods_speak_the_one_error_shape(database):
    async with rig(database) as house:
        for method, path, status in (("GET", "/nowhere", 404), ("PUT", "/requests", 405)):
            answer = await house.http.request(method, path)
            assert answer.status_code == status
            assert set(answer.json()["error"]) == {"code", "message"}
