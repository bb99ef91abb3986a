"""What is published for a request: replies, failures, status."""

from typing import Any

import orjson
import pytest

from service.answering import reply as replies
from service.answering.job import Job
from service.domain import Claimed, Message, Publish, State, Usage
from service.errors import MessageError
from service.flows import Flow, parse
from service.llm.attempts import Log
from service.mqtt.templates import Scope

FLOW = '[flows.x]\nrequest = "in/${user}"\nreply = "out/${user}"\n'


def flow(keys: str = "", text: str = FLOW) -> Flow:
    made, faults = parse(text + keys)
    assert made is not None, [str(fault) for fault in faults]
    return made.flows["x"]


def claimed(*, publish: bool = True, conversation: str = "ada", **fields: Any) -> Claimed:
    known = {"id": "m1", "topic": "in/ada", "payload": b"hi", "received_at": 0}
    return Claimed(
        seq=1,
        fence=1,
        id="r1",
        flow="x",
        conversation=conversation,
        ordered=False,
        state=State.ANSWERING,
        message=Message(**known | fields),
        accepted_at=0,
        deadline=1,
        publish=publish,
    )


def job(made: Flow, request: Claimed) -> Job:
    captured = {"user": "ada"}
    scope = Scope(request.message, captured)
    log = Log(request.id, lambda: 0, usage=Usage(3, 4))
    return Job(request, made, captured, scope, log)


def said(made: Flow, request: Claimed, text: str = "hello", **more: Any) -> tuple[Publish, ...]:
    return replies.reply(job(made, request), text, "m", **more)


def told(made: Flow, request: Claimed) -> tuple[Publish, ...]:
    return replies.failure(job(made, request), "code", "it is so")


def test_a_text_reply() -> None:
    keys = 'retain = true\nqos = 2\nexpiry = "1m"'
    (publish,) = said(flow(keys), claimed(correlation=b"\x00c"))
    assert publish == Publish(
        topic="out/ada",
        payload=b"hello",
        qos=2,
        retain=True,
        content_type="text/plain",
        correlation=b"\x00c",
        expiry=60,
        user_properties=(("request_id", "r1"),),
    )


def test_a_json_reply() -> None:
    (publish,) = said(flow('format = "json"'), claimed())
    assert orjson.loads(publish.payload) == {
        "id": "r1",
        "conversation": "ada",
        "text": "hello",
        "model": "m",
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    assert publish.content_type == "application/json"


def test_a_reply_that_was_cut_short_says_so() -> None:
    (publish,) = said(flow(), claimed(), truncated=True)
    assert publish.payload.decode() == "hello …"
    assert ("truncated", "true") in publish.user_properties
    (publish,) = said(flow('format = "json"'), claimed(), truncated=True)
    assert orjson.loads(publish.payload)["truncated"] is True


def test_what_on_error_says_is_not_retained() -> None:
    (publish,) = said(flow("retain = true"), claimed(), error="model_quota")
    assert not publish.retain
    assert ("error", "model_quota") in publish.user_properties


@pytest.mark.parametrize(
    ("keys", "payload", "content_type"),
    [
        ("", b"No answer: it is so.", "text/plain"),
        (
            'format = "json"',
            b'{"id":"r1","error":{"code":"code","message":"it is so"}}',
            "application/json",
        ),
    ],
)
def test_a_failure(keys: str, payload: bytes, content_type: str) -> None:
    (publish,) = told(flow(keys + "\nretain = true"), claimed(correlation=b"c"))
    assert (publish.payload, publish.content_type) == (payload, content_type)
    assert publish.topic == "out/ada"
    assert publish.correlation == b"c"
    assert not publish.retain
    assert publish.user_properties == (("request_id", "r1"), ("error", "code"))


ALLOW = 'allow_response_topics = ["answers/#"]'
ERROR = 'error = "errors/${user}"'


@pytest.mark.parametrize(
    ("keys", "response_topic", "reply", "error"),
    [
        ("", None, "out/ada", "out/ada"),
        ("", "answers/1", "out/ada", "out/ada"),
        (ALLOW, None, "out/ada", "out/ada"),
        (ALLOW, "answers/1", "answers/1", "answers/1"),
        (ALLOW, "answers", "answers", "answers"),
        (ALLOW, "other/1", "out/ada", "out/ada"),
        (ALLOW, "answers/+", "out/ada", "out/ada"),
        (ALLOW, "answers/#", "out/ada", "out/ada"),
        (ALLOW, "answers/\0", "out/ada", "out/ada"),
        (ERROR, None, "out/ada", "errors/ada"),
        (f"{ALLOW}\n{ERROR}", "answers/1", "answers/1", "errors/ada"),
    ],
)
def test_topics(keys: str, response_topic: str | None, reply: str, error: str) -> None:
    made, request = flow(keys), claimed(response_topic=response_topic)
    assert [publish.topic for publish in said(made, request)] == [reply]
    assert [publish.topic for publish in told(made, request)] == [error]


def test_without_topics_nothing_is_published() -> None:
    made = flow(text='[flows.x]\nrequest = "in/${user}"\n')
    assert said(made, claimed()) == ()
    assert told(made, claimed()) == ()
    assert replies.status(job(made, claimed()), "working") == ()


def test_what_came_over_http_is_not_published() -> None:
    made, request = flow('status = "light/${user}"'), claimed(publish=False)
    assert said(made, request) == ()
    assert told(made, request) == ()
    assert replies.status(job(made, request), "working") == ()


def test_a_topic_that_can_not_be_made() -> None:
    made = flow(text='[flows.x]\nrequest = "in/${user}"\nreply = "out/${payload.room}"\n')
    with pytest.raises(MessageError):
        said(made, claimed())
    assert told(made, claimed()) == ()  # there is no place to tell it


def test_status() -> None:
    made = flow('status = "light/${user}"\nretain = true')
    (publish,) = replies.status(job(made, claimed()), "failed", "code")
    assert publish.topic == "light/ada"
    assert orjson.loads(publish.payload) == {
        "id": "r1", "conversation": "ada", "status": "failed", "error": "code"
    }  # fmt: skip
    assert {replies.STATUS[state] for state in State if state.ended} == {
        "completed", "failed", "expired", "ignored"
    }  # fmt: skip


def test_lone_surrogates_are_no_reason_to_fail() -> None:
    """A model's or a device's broken text must not stop the reply."""
    request = claimed(conversation="a\ud800")
    for keys in ("", 'format = "json"\nstatus = "light"'):
        made = flow(keys)
        (publish,) = said(made, request, "\ud800 x")
        publish.payload.decode()
        (publish,) = replies.failure(job(made, request), "code", "\udfff")
        publish.payload.decode()
    (publish,) = replies.status(job(made, request), "working")
    assert orjson.loads(publish.payload)["conversation"] == "a?"
