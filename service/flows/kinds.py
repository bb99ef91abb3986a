"""The types that a key of flows.toml can have: how it is read, what an editor is told of it, and
by which mark the checks know it.

A key is one line in `tables`: `status: Topic | None = key(None, "Where progress is told.")`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, Strict
from pydantic_core import PydanticCustomError, PydanticKnownError, core_schema

from service.flows.cron import Cron, CronError, zone_of
from service.flows.hours import HOURS, Hours
from service.flows.model_names import ModelRef
from service.flows.regex import Regex, RegexError
from service.flows.schemas import Schema
from service.mqtt.comparisons import Comparison
from service.mqtt.payloads import charset_of
from service.mqtt.templates import Template, TemplateError
from service.mqtt.topics import TopicError, TopicPattern, fault_in_filter
from service.rulesql.reserved import not_a_source
from service.units import (
    DURATION,
    LIMIT,
    SIZE,
    Limit,
    duration,
    limit,
    show_seconds,
    size,
    whole_seconds,
)

T = TypeVar("T")
REQUIRED: Any = object()


def key(default: Any, description: str, *, default_from: str = "", **limits: Any) -> Any:
    """Declares a key. `default_from` names the key whose value it has when it is not set;
    `limits` are pydantic's (`ge`, `le`); a `default` that makes new values is called."""
    metadata = {"description": description, "default_from": default_from, **limits}
    if default is REQUIRED:
        return field(metadata=metadata)
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


class Mark(Enum):
    """What the checks do with a value."""

    PLAIN = auto()  # nothing more
    REQUEST = auto()  # a topic that is answered: nothing is published to it
    WATCHED = auto()  # a topic whose messages are kept and not answered
    TEMPLATE = auto()  # every ${name} in it stands for something
    TOPIC = auto()  # likewise, and it is published to
    LOOKUP = auto()  # likewise a topic, but only read
    ANSWER = auto()  # likewise, but listened to
    SAME = auto()  # two templates, of which one reads what a device says
    RESPONSE = auto()  # a filter of topics that may be published to
    REGEX = auto()
    MODEL = auto()
    CONDITION = auto()
    JSON = auto()
    SCHEMA = auto()


@dataclass(frozen=True, eq=False, slots=True)
class Kind:
    """A type: `read` makes the value or raises, `write` gives the text that would be read."""

    mark: Mark
    read: Callable[[Any], Any]
    schema: Mapping[str, Any]
    write: Callable[[Any], Any] = str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return dict(self.schema)


class OneOrMore:
    """One value or a list of them, as a tuple."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(_as_tuple, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        item = handler(core)["items"]
        return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def fault(message: str, hint: str = "") -> PydanticCustomError:
    """What is wrong with a value, and what to do."""
    return PydanticCustomError("fault", "fault", {"message": message, "hint": hint})


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list) and not value:
        raise PydanticKnownError("too_short", _SHORT)
    if not isinstance(value, str | list):
        hint = f'write "{value}"' if type(value) in (int, float) else ""
        raise fault("must be text in quotes, or a list of such", hint)
    return (value,) if isinstance(value, str) else tuple(value)


_SHORT = {"field_type": "Tuple", "min_length": 1, "actual_length": 0}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    if not value:
        raise fault("is empty")
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PydanticKnownError("dict_type")
    return value


def _read(parse: Callable[[str], T]) -> Callable[[Any], T]:
    def read(value: Any) -> T:
        try:
            return parse(_text(value))
        except (TemplateError, TopicError) as error:
            raise fault(error.message, error.hint) from None

    return read


def _cron(text: str) -> Cron:
    try:
        return Cron.parse(text)
    except CronError as error:
        raise fault(error.message, error.hint) from None


def _zone(text: str) -> str:
    try:
        return zone_of(text)
    except CronError as error:
        raise fault(error.message, error.hint) from None


def _request(text: str) -> TopicPattern:
    pattern = TopicPattern.parse(text)
    if hint := not_a_source(pattern.filter):
        raise TopicError(f'topic "{text}" can\'t be a request topic', hint)
    return pattern


def _watched(text: str) -> TopicPattern:
    pattern = TopicPattern.parse(text)
    if hint := not_a_source(pattern.filter):
        raise TopicError(f'topic "{text}" can\'t be listened to', hint)
    return pattern


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise fault(
            f'"{text}" is no value of a JSON payload', 'such as "temperature" or "env.temp"'
        )
    return text


def _filter(text: str) -> str:
    if found := fault_in_filter(text):
        raise fault(f'"{text}" {found}', 'a filter is such as "replies/#"')
    return text


def _charset(text: str) -> str:
    if charset_of(text) is None:
        raise fault(f'"{text}" is no charset that is known here', 'such as "gbk" or "latin-1"')
    return text


def _regex(text: str) -> Regex:
    try:
        # `.` takes line ends too: "the wake word and all before it" may span lines. Case is
        # what speech recognition makes of it.
        return Regex(text)
    except RegexError as error:
        raise fault(error.message, error.hint) from None


def _schema(value: Any) -> Schema:
    return Schema(_table(value))


def _parameters(value: Any) -> Schema:
    """OpenAI wants the type; it can only be this one."""
    return Schema({"type": "object", **(_table(value) or {"properties": {}})})


def _factors(value: Any) -> dict[str, float]:
    for name, factor in _table(value).items():
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not 0 <= factor <= 1000:
            raise fault(f"{name} must be a number from 0 to 1000", "flex = 0.5 is half the price")
    return {name: float(factor) for name, factor in value.items()}


def no_arguments() -> Schema:
    return _parameters({})


def _percent(value: Any) -> float:
    found = (
        re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", value.strip()) if isinstance(value, str) else None
    )
    if found is None or not 0 < float(found[1]) <= 1000:
        bare = isinstance(value, int | float) and not isinstance(value, bool)
        hint = f'write "{value}%"' if bare and value >= 1 else 'such as "5%"'
        raise fault("must be a share in percent", hint)
    return float(found[1]) / 100


def _size(value: Any) -> int:
    return value if type(value) is int and value > 0 else size(_text(value))


def _summing(value: Any) -> Any:
    """true: by the flow's model; false: not."""
    if isinstance(value, bool):
        return value or None
    return _read(ModelRef.parse)(value)


def _summed(value: Any) -> Any:
    return value if value is True else str(value)


def _no_bool(value: Any) -> Any:
    """Python takes true for 1; here it is a mistake."""
    if isinstance(value, bool):
        raise ValueError("write 0, 1 or 2")
    return value


def _shaped(pattern: str, *examples: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$", "examples": list(examples)}


_PATH = re.compile(r"[\w-]+(\.[\w-]+)*")
_TEXT = {"type": "string", "minLength": 1}
_TABLE = {"type": "object", "additionalProperties": True}
_DURATION = _shaped(DURATION, "90s", "5m", "24h", "7d")
_SIZE = {"anyOf": [{"type": "integer", "minimum": 1}, _shaped(SIZE, "500 KB", "8 MB")]}
_HOURS = _shaped(f"{HOURS} \\S+", "07:00-22:00 Europe/Berlin", "22:00-06:00 UTC")
_LIMIT = _shaped(LIMIT, "10/min", "100/h", "1000/day")

Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(gt=0, le=10**12)]  # databases count in 64 bits
Number = Annotated[float, Strict()]
Qos = Annotated[Literal[0, 1, 2], BeforeValidator(_no_bool)]
Text = Annotated[str, Kind(Mark.PLAIN, _text, _TEXT)]
Duration = Annotated[float, Kind(Mark.PLAIN, duration, _DURATION, show_seconds)]
WholeSeconds = Annotated[int, Kind(Mark.PLAIN, whole_seconds, _DURATION, show_seconds)]
Rate = Annotated[Limit, Kind(Mark.PLAIN, limit, _LIMIT)]
Size = Annotated[int, Kind(Mark.PLAIN, _size, _SIZE)]

Percent = Annotated[
    float,
    Kind(
        Mark.PLAIN,
        _percent,
        _shaped(r"[0-9]+(\.[0-9]+)? ?%", "5%"),
        lambda share: f"{share * 100:g}%",
    ),
]
Schedule = Annotated[Cron, Kind(Mark.PLAIN, _read(_cron), _TEXT)]
Zone = Annotated[str, Kind(Mark.PLAIN, _read(_zone), _TEXT)]
WatchedTopic = Annotated[TopicPattern, Kind(Mark.WATCHED, _read(_watched), _TEXT)]
ValuePath = Annotated[str, Kind(Mark.PLAIN, _read(_path), _TEXT)]
RequestTopic = Annotated[TopicPattern, Kind(Mark.REQUEST, _read(_request), _TEXT)]
Words = Annotated[Template, Kind(Mark.TEMPLATE, _read(Template.parse), _TEXT)]
Topic = Annotated[Template, Kind(Mark.TOPIC, _read(Template.parse), _TEXT)]
LookupTopic = Annotated[Template, Kind(Mark.LOOKUP, _read(Template.parse), _TEXT)]
AnswerTopic = Annotated[Template, Kind(Mark.ANSWER, _read(Template.parse), _TEXT)]
Same = Annotated[Comparison, Kind(Mark.SAME, _read(Comparison.parse), _TEXT)]
OpenHours = Annotated[Hours, Kind(Mark.PLAIN, Hours.parse, _HOURS)]
ResponseFilter = Annotated[str, Kind(Mark.RESPONSE, _read(_filter), _TEXT)]
Charset = Annotated[str, Kind(Mark.PLAIN, _read(_charset), _TEXT)]
Pattern = Annotated[Regex, Kind(Mark.REGEX, _read(_regex), _TEXT, lambda it: it.pattern)]
Model = Annotated[ModelRef, Kind(Mark.MODEL, _read(ModelRef.parse), _TEXT)]
Summing = Annotated[
    ModelRef | Literal[True],
    Kind(Mark.MODEL, _summing, {"anyOf": [{"type": "boolean"}, _TEXT]}, _summed),
]
Condition = Annotated[str, Kind(Mark.CONDITION, _text, _TEXT)]
JsonTable = Annotated[Mapping[str, Any], Kind(Mark.JSON, _table, _TABLE, dict)]
Factors = Annotated[
    Mapping[str, float],
    Kind(
        Mark.PLAIN,
        _factors,
        {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
        dict,
    ),
]
JsonSchema = Annotated[Mapping[str, Any], Kind(Mark.SCHEMA, _schema, _TABLE, dict)]
Parameters = Annotated[Mapping[str, Any], Kind(Mark.SCHEMA, _parameters, _TABLE, dict)]
