"""Whatever stands there: every parser answers with a value or with its own error, no other."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service import settings as our_settings
from service.answering.prompt import Ignored, check_schema, decode, understand
from service.domain import Message
from service.emqx.message import parse as parse_message
from service.errors import ApiError, ConfigError, Fault, MessageError, ModelError, StoreUnusable
from service.flows.flow import Flow, Provider
from service.flows.lines import scan
from service.flows.load import parse as parse_flows
from service.flows.model_names import ModelRef, end_of_life
from service.inbox.database import parse as parse_url
from service.llm import failures
from service.llm.answers import Completion
from service.llm.chat_completions import ChatAnswer, IncomingAnswer, Question, body
from service.llm.contents import documents_of, json_of
from service.llm.learning import lesson
from service.llm.providers import dialect_of, find
from service.llm.rate_limits import Granted
from service.llm.responses import ResponsesAnswer
from service.llm.tool_calls import calls_as_answer, calls_in, normal_arguments, short_id
from service.llm.usage import usage_of
from service.mqtt.topics import TopicPattern
from service.units import duration, limit, size, whole_seconds
from tests.fuzz.scale import times

MODEL = ModelRef.parse("gpt-4.1-mini")
TOOLS = {"type": "function", "function": {"name": "switch", "parameters": {"type": "object"}}}
QUESTION = Question(MODEL, ({"role": "user", "content": "hello"},), {"tools": [TOOLS]})
FLOWS = """[flows.chat]
request = "chatgpt/request/${user}"
reply = "chatgpt/response/${user}"
model = "gpt-4.1-mini"
history = { messages = 6 }
"""

often = settings(max_examples=times(60), deadline=None)
# Beside any text: the letters that our parsers look for, since nobody meets them by chance.
marks = st.sampled_from(
    ["```", "```json\n", "<think>", "</think>", "<tool_call>", "</tool_call>", "<function=switch>"]
    + ["</function>", "<parameter=on>", "[TOOL_CALLS]", "{", "}", "[", "]", '"', "\\", "${", "}"]
    + ["data: ", "\n", "\r\n", "\0", "\ud83d", "\u202e", "null", "NaN", "1e999", "#", "+", "/", "$"]
    + ['{"name": "switch", "arguments": {"on": true}}', "'''", "=", "[flows.", "]\n", "functions."]
)
texts = st.one_of(st.text(st.characters(), max_size=60), st.lists(marks, max_size=20).map("".join))
numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none())
names = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments"]
        + ["usage", "prompt_tokens", "total_tokens", "error", "code", "type", "status", "output"]
        + ["finish_reason", "reasoning_content", "refusal", "index", "id", "text", "response"]
        + ["incomplete_details", "reason", "summary", "base_resp", "status_code", "detail", "model"]
    ),
)
documents = st.recursive(
    st.one_of(numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=5)),
    max_leaves=25,
)
objects = st.dictionaries(names, documents, max_size=5)
kinds = st.sampled_from(
    ["response.output_text.delta", "response.completed", "response.failed", "error", "message"]
)


def flow_with(keys: str = "") -> Flow:
    flows, faults = parse_flows(FLOWS + keys)
    assert flows is not None, faults
    found = flows.find("chat", "chatgpt/request/u1")
    assert found is not None
    return found


FLOW, AS_JSON, AS_IMAGE = (flow_with(f'input = "{kind}"') for kind in ("text", "json", "image"))


@often
@given(documents)
def test_units(value: Any) -> None:
    for read in (duration, whole_seconds, limit, size):
        with contextlib.suppress(ValueError):
            read(value if read is not size else str(value))


@often
@given(texts)
@example("[flows.chat]\nreply.topic = '${'")
@example("[[flows]]\n")
@example("flows = 1")
@example("[flows]\nchat = []")
@example("[flows.chat]\nhistory = 6\nhistory = 7")
def test_flows_files(text: str) -> None:
    """Faults have a line within the file, and a sentence."""
    for whole in (text, FLOWS + text, f"[flows.chat]\n{text}"):
        flows, faults = parse_flows(whole)
        assert flows is not None or any(not fault.warning for fault in faults)
        for fault in faults:
            assert fault.message
            assert fault.line is None or 1 <= fault.line <= whole.count("\n") + 1
        with contextlib.suppress(tomllib.TOMLDecodeError):
            tomllib.loads(whole)
            scan(whole)


@often
@given(st.dictionaries(st.sampled_from(["request", "reply", "tools", "history", "strip", "where"])
                       | st.text(max_size=5), documents, max_size=4))  # fmt: skip
def test_values_of_flows(keys: dict[str, Any]) -> None:
    """Any value under any key: TOML has no null, nor numbers over 64 bits."""

    def toml(value: Any) -> str:
        match value:
            case bool():
                return "true" if value else "false"
            case int() | float():
                return str(value)
            case None:
                return '""'
            case str():
                return '"' + "".join(f"\\U{ord(c):08X}" for c in clean(value)) + '"'
            case list():
                return f"[{', '.join(map(toml, value))}]"
        pairs = (f"{toml(str(key))} = {toml(inner)}" for key, inner in value.items())
        return f"{{ {', '.join(pairs)} }}"

    def clean(value: str) -> str:
        return value.encode("utf-8", "replace").decode()

    lines = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in keys.items())
    flows, faults = parse_flows(f"[flows.chat]\n{lines}\n")
    assert flows is not None or faults


@often
@given(texts)
def test_models_topics_and_addresses(text: str) -> None:
    with contextlib.suppress(ConfigError, ValueError):
        end_of_life(ModelRef.parse(text), text)
    with contextlib.suppress(ConfigError):
        pattern = TopicPattern.parse(text)
        pattern.match(text)
    find(None, text)
    for scheme in ("", "sqlite:///", "postgresql://"):
        with contextlib.suppress(StoreUnusable):
            parse_url(scheme + text)


@often
@given(st.sampled_from(sorted(our_settings.Settings.model_fields)), texts)
def test_settings(name: str, value: str) -> None:
    """Each variable with any value: it is taken, or named with a sentence."""
    plain = value.replace("\0", "").encode("utf-8", "replace").decode()
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv(name.upper(), plain)
        faults = [Fault(name, "taken")]
        try:
            our_settings.load({name.upper(): plain})
        except ConfigError as error:
            faults = list(error.faults)
        assert faults
        assert all(fault.where and fault.message for fault in faults)


# As bytes: no JSON writer of ours makes what a device may send.
raws = st.one_of(
    st.binary(max_size=80), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
)


@often
@given(raws)
def test_webhook_bodies(raw: bytes) -> None:
    with contextlib.suppress(ApiError):
        parse_message(raw, now=1)


@often
@given(raws, st.sampled_from([FLOW, AS_JSON, AS_IMAGE]))
def test_payloads(payload: bytes, one: Flow) -> None:
    message = Message("1", "chatgpt/request/u1", payload, 1)
    with contextlib.suppress(MessageError):
        decode(payload)
    with contextlib.suppress(MessageError, Ignored):
        understand(one, message, {"user": "u1"})


def fed(answer: IncomingAnswer, events: list[Any]) -> None:
    with contextlib.suppress(ModelError):
        said = [answer.add(event) for event in events]
        assert all(isinstance(one, str) for one in [*said, answer.rest()])
        check(answer.completion())


def check(made: Completion) -> None:
    assert all(isinstance(one, str) for one in (made.text, made.model, made.reasoning))
    for call in made.tool_calls:
        assert call.name
        assert isinstance(call.arguments, str)
    assert 0 <= made.usage.total_tokens < 1 << 56


@often
@given(st.lists(documents, max_size=4))
@example([{"choices": [{"delta": {"content": "a"}}]}, {"choices": [{"finish_reason": {}}]}])
@example([{"choices": [{"message": {"content": "a", "refusal": ["no"]}}]}])
@example([{"choices": [{"message": {"tool_calls": [{"function": {"arguments": 1 << 70}}]}}]}])
@example([{"choices": [{"message": {"content": "a"}}], "model": {"a": 1}}])
@example([{"choices": [{"message": {"content": "a", "reasoning": {"a": 1}}}]}])
def test_chat_answers(events: list[Any]) -> None:
    fed(ChatAnswer(QUESTION), events)
    fed(ChatAnswer(QUESTION), [{"choices": [event]} for event in events])
    fed(ChatAnswer(QUESTION), [{"choices": [{"delta": event}]} for event in events])
    fed(ChatAnswer(QUESTION), [{"choices": [{"message": event}]} for event in events])
    calls = [{"choices": [{"delta": {"tool_calls": [event]}}]} for event in events]
    fed(ChatAnswer(QUESTION), [*calls, {"choices": [{"finish_reason": "tool_calls"}]}])


@often
@given(st.lists(documents, max_size=4), kinds)
@example([{"status": 1, "output": [{"type": "message", "content": 1}]}], "response.completed")
@example([{"model": 1, "output": [{"type": "message", "content": "a"}]}], "response.completed")
@example([{"output": [{"type": "reasoning", "summary": 1}]}], "response.completed")
def test_responses_answers(events: list[Any], kind: str) -> None:
    fed(ResponsesAnswer(QUESTION), events)
    fed(ResponsesAnswer(QUESTION), [{"type": kind, "response": event} for event in events])
    fed(ResponsesAnswer(QUESTION), [{"output": [event]} for event in events])
    fed(ResponsesAnswer(QUESTION), [{"output": [{"type": "message", "content": events}]}])


@often
@given(st.integers(100, 599), documents, st.dictionaries(names, st.text(max_size=20), max_size=3))
def test_refusals(status: int, said: Any, headers: dict[str, str]) -> None:
    for one in (said, str(said).encode("utf-8", "surrogatepass"), {"error": said}):
        error = failures.failure(status, one, headers, MODEL, "http://127.0.0.1/v1")
        assert error.code
        assert str(error).isprintable()
    Granted.read(headers)
    Granted.read({"x-ratelimit-remaining": next(iter(headers.values()), "")})


@often
@given(objects)
def test_usage(answer: Mapping[str, Any]) -> None:
    for one in (answer, {"usage": answer}):
        assert usage_of(one).total_tokens >= 0


@often
@given(texts)
def test_what_a_model_wrote(text: str) -> None:
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    tools = {"switch": schema}
    for document in documents_of(text):
        json.loads(document)
    json_of(text)
    check_schema(text, schema)
    calls_as_answer(text, tools)
    calls_in([text], tools)
    normal_arguments(text.encode("utf-8", "replace").decode())
    assert len(short_id(text, 9)) == 9
    failures.seconds(text)
    assert failures.clean(text).isprintable()


@often
@given(texts, st.booleans())
def test_lessons(said: str, stream: bool) -> None:
    dialect = dialect_of(find(None, None), Provider(base_url="http://127.0.0.1:1/v1"))
    made = body(QUESTION, dialect, stream=stream)
    lesson(dialect, made, said)
