"""What a call waits for: a person's word, a device's answer, a state. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from service import safe_text
from service.answering import consent, sentences
from service.answering.job import Job
from service.answering.tool_command import Command, since
from service.domain import Ear, Publish, Wait
from service.errors import MessageError
from service.mqtt.comparisons import CALL
from service.mqtt.templates import Scope

QUESTION = 4000  # characters of a question to a person


def question_of(job: Job, made: Command, now: int) -> tuple[Publish, Wait]:
    """The question to a person, and the wait for their word. Raises MessageError."""
    asked, scope = made.tool.confirm, made.scope
    if asked is None:
        raise AssertionError("a tool that asks")
    if asked.text is not None:
        # A value of several lines could be read as a question of its own.
        extras = {**_one_line(made.arguments), CALL: made.id}
        text = asked.text.render(Scope(job.claimed.message, job.captured, extras))
    else:
        heard = "" if job.flow.input == "image" else job.scope.text
        told = ", ".join(f"{name}: {_shown(value)}" for name, value in made.arguments.items())
        what = f"{made.tool.name} ({told})" if told else made.tool.name
        language = sentences.language(job.flow, heard)
        text = consent.question(language, what, pin=asked.pin_env is not None)
    text = safe_text.shown(text)
    if len(text) > QUESTION:
        raise MessageError("what is to be confirmed is too long to be read")
    answer = asked.answer.render_topic(scope)
    question = Publish(
        topic=asked.ask.render_topic(scope),
        payload=text.encode("utf-8", "replace"),
        content_type="text/plain",
        correlation=made.id.encode(),
        response_topic=answer,
        expiry=max(1, int(asked.timeout)),
        user_properties=(("request_id", job.claimed.id), ("call_id", made.id)),
    )
    rule = {
        "pin_env": asked.pin_env,
        "tool": made.tool.name,
        "asked": text,
        "since": since(job, now),
    }
    until = now + int(asked.timeout * 1000)
    return question, Wait(made.id, Ear.CONFIRM, answer, until, rule)


def listens_for(job: Job, made: Command, now: int) -> list[Wait]:
    """What a command that goes out now waits for. Raises MessageError."""
    tool, begun = made.tool, []
    rule: dict[str, Any] = {
        "captured": dict(job.captured),
        "arguments": dict(made.arguments),
        "tool": tool.name,
        "since": since(job, now),
    }
    if tool.answer is not None:
        told = tool.payload is None or CALL in tool.payload.names or tool.response_topic
        match = {"match": tool.match.text} if tool.match is not None else {"told": told}
        until = now + int(tool.answer_timeout * 1000)
        topic = tool.answer.render_topic(made.scope)
        begun.append(Wait(made.id, Ear.ANSWER, topic, until, rule | match))
    if tool.verify is not None and tool.verify.answer is not None:
        until = now + int(tool.verify.within * 1000)
        topic = tool.verify.answer.render_topic(made.scope)
        expect = {"expect": tool.verify.expect.text}
        begun.append(Wait(made.id, Ear.VERIFY, topic, until, rule | expect))
    return begun


def _shown(value: Any) -> str:
    """All of it, in one line: a person says yes to what is read, and to nothing else."""
    value = _one_line(value)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _one_line(value: Any) -> Any:
    """The same with texts in which no character hides, turns or breaks a line."""
    if isinstance(value, str):
        return "".join(char if char.isprintable() else " " for char in value)
    if isinstance(value, Mapping):
        return {_one_line(name): _one_line(each) for name, each in value.items()}
    return [_one_line(each) for each in value] if isinstance(value, list) else value
