"""The tables of a tool: what the model may do, and what stands in its way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from service.flows.kinds import (
    REQUIRED,
    AnswerTopic,
    Duration,
    Flag,
    LookupTopic,
    Number,
    OpenHours,
    Parameters,
    Qos,
    Rate,
    Same,
    Text,
    Topic,
    Words,
    key,
    no_arguments,
)
from service.mqtt.templates import Template
from service.rulesql.reserved import landing

_FORBID = ConfigDict(extra="forbid")
_MANY = 100  # filters of one topic
GUARDS = ("confirm", "rate", "flow_rate", "hours", "bounds")
"""The keys of a tool that stand before its calls."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """A person is asked before the tool does anything; silence is no."""

    __pydantic_config__ = _FORBID

    ask: Topic = key(REQUIRED, "Where the person is asked.")
    answer: AnswerTopic = key(REQUIRED, "Where the person answers.")
    timeout: Duration = key(120.0, "How long the answer is waited for.", ge=1, le=86_400)
    text: Words | None = key(
        None, "The question; ${name} is an argument. Without it: built in, in the flow's language."
    )
    pin_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = key(
        None, "Name of the environment variable with a PIN of digits that a yes must bring."
    )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far an argument may be from how things stand now."""

    __pydantic_config__ = _FORBID

    argument: Text = key(REQUIRED, "The argument that is bounded, a number.")
    read: LookupTopic = key(REQUIRED, "The topic whose retained message says how things stand.")
    max_change: Number = key(REQUIRED, "The argument may differ from it by so much.", gt=0)
    value: Words = key(Template.parse("${payload}"), "What of that message is the number.")


@dataclass(frozen=True, slots=True)
class Verify:
    """Whether the tool did what it should, as the device itself says."""

    __pydantic_config__ = _FORBID

    expect: Same = key(REQUIRED, 'What must hold: "${payload.on} = ${on}".')
    read: LookupTopic | None = key(None, "A topic whose retained message tells.")
    answer: AnswerTopic | None = key(None, "Or a topic on which the device tells.")
    within: Duration = key(10.0, "How long it may take.", ge=0.1, le=86_400)


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the model may do (publish to `topic`) or look up (`read` a retained message)."""

    __pydantic_config__ = _FORBID

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = key(
        REQUIRED, "The function's name, for the model: letters, digits, _ and -."
    )
    description: Text = key(REQUIRED, "What it does and when to use it, for the model.")
    topic: Topic | None = key(
        None, "Where a call is published; ${name} is an argument or a captured level."
    )
    payload: Words | None = key(None, "What is published. Without it: the arguments as JSON.")
    read: LookupTopic | None = key(None, "The topic whose retained message is told to the model.")
    parameters: Parameters = key(no_arguments, "The arguments, as JSON Schema of an object.")
    at_most_once: Flag = key(False, "Rather lose a call in a crash than publish it twice.")
    qos: Qos = key(1, "QoS of what is published.")
    retain: Flag = key(False, "Publish as a retained message.")
    answer: AnswerTopic | None = key(
        None, "Where the device answers; the model is told what it says."
    )
    answer_timeout: Duration = key(5.0, "How long its answer is waited for.", ge=0.1, le=86_400)
    match: Same | None = key(
        None, "Which answer is meant: the one with this call's id, or with equal values."
    )
    response_topic: Flag = key(
        False, "MQTT 5: the command brings Response-Topic and Correlation-Data."
    )
    confirm: Confirm | None = key(None, "A person is asked first.")
    rate: Rate | None = key(None, 'Calls per conversation: "3/min".')
    flow_rate: Rate | None = key(None, 'Calls of the whole flow: "100/h".')
    hours: OpenHours | None = key(None, 'When it may be used: "07:00-22:00 Europe/Berlin".')
    bounds: Bounds | None = key(None, "How far an argument may be from how things stand.")
    verify: Verify | None = key(None, "Whether it worked, as the device itself says.")

    @property
    def guarded(self) -> bool:
        """Whether a call of it may have to wait, or to be stored before it goes out."""
        return any((self.confirm, self.answer, self.verify, self.rate, self.flow_rate))

    def gets_round(self, other: Tool) -> list[str]:
        """Which of another tool's guards this one has not: where both publish to one topic, a call
        of this one would be a way round them. It may have them with other figures or words, but a
        PIN is a PIN. Not where each says a text of its own, as LOCK and UNLOCK: what the other
        guards is not said then."""
        said, theirs = _fixed(self.payload), _fixed(other.payload)
        if said is not None and theirs is not None and said != theirs:
            return []
        missing = [key for key in GUARDS if getattr(other, key) and not getattr(self, key)]
        pin = other.confirm.pin_env if other.confirm is not None else None
        if self.confirm is not None and pin not in (None, self.confirm.pin_env):
            missing.insert(0, "confirm")
        return missing

    @property
    def reach(self) -> tuple[str, ...]:
        """Filters of all topics where its calls end up. An argument of a few texts (`enum`) can be
        no other level."""
        return _reach(self.topic, self.parameters) if self.topic is not None else ()


def _fixed(payload: Template | None) -> str | None:
    if payload is None or payload.names:
        return None
    return "".join(text for text, _ in payload.parts)


def _reach(topic: Template, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    choices = {name: _texts_of(parameters, name) for name in topic.names}
    known = {name: texts for name, texts in choices.items() if texts is not None}
    if math.prod(map(len, known.values())) > _MANY:
        known = {}
    made = set()
    for texts in itertools.product(*known.values()):
        values = dict(zip(known, texts, strict=True))
        parts = [values.get(part, "\0") if is_name else part for part, is_name in topic.parts]
        levels = "".join(parts).split("/")
        made.add(landing("/".join("+" if "\0" in level else level for level in levels)))
    return tuple(sorted(made))


def _texts_of(parameters: Mapping[str, Any], name: str) -> list[str] | None:
    """All texts that an argument can be, as far as they are topic levels; None: any."""
    properties = parameters.get("properties")
    declared = properties.get(name) if isinstance(properties, Mapping) else None
    found = declared.get("enum") if isinstance(declared, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        return None
    return [text for text in found if text and not any(char in text for char in "/+#\0")]
