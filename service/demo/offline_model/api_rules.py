"""What OpenAI's own description of its API refuses, in the words of its errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs

from service.demo.offline_model.request import Message, Refused

_ANY: dict[str, Any] = {}
_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_OBJECT = {"type": "object"}
_NAME = {"type": "string", "pattern": "^[a-zA-Z0-9_-]+$", "maxLength": 64}
_EFFORTS = ["none", "minimal", "low", "medium", "high", "xhigh"]


def _number(low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"type": "number"} | _limits(low, high)


def _integer(low: int | None = None, high: int | None = None) -> dict[str, Any]:
    return {"type": "integer"} | _limits(low, high)


def _limits(low: float | None, high: float | None) -> dict[str, Any]:
    found = {"minimum": low, "maximum": high}
    return {key: value for key, value in found.items() if value is not None}


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


_SCHEMA_FORMAT = _object("name", name=_NAME, schema=_OBJECT, strict={"type": ["boolean", "null"]})
_FUNCTION = _object("name", name=_NAME, description=_TEXT, parameters=_OBJECT)
_EITHER: dict[str, Any] = {
    "model": {"type": "string", "minLength": 1},
    "temperature": _number(0, 2), "top_p": _number(0, 1), "top_logprobs": _integer(0, 20),
    "stream": {"type": ["boolean", "null"]}, "store": {"type": ["boolean", "null"]},
    "parallel_tool_calls": _FLAG, "user": _TEXT, "safety_identifier": _TEXT,
    "prompt_cache_key": _TEXT, "prompt_cache_retention": _ANY, "metadata": _OBJECT,
    "service_tier": {"enum": ["auto", "default", "flex", "scale", "priority"]},
    "stream_options": {"type": ["object", "null"]}, "tool_choice": {"type": ["string", "object"]},
}  # fmt: skip
CHAT = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": False,
    "properties": {
        **_EITHER,
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": _object(
                "role",
                role={"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
                content={"type": ["string", "array", "null"]},
                tool_calls={
                    "type": "array",
                    "minItems": 1,
                    "items": _object(
                        "id", "function", id=_TEXT,
                        function=_object("name", "arguments", name=_TEXT, arguments=_TEXT),
                    ),
                },
                tool_call_id=_TEXT,
            ),
        },
        "tools": {
            "type": "array",
            "minItems": 1,
            "maxItems": 128,
            "items": _object("type", "function", type={"enum": ["function"]}, function=_FUNCTION),
        },
        "response_format": _object(
            "type",
            type={"enum": ["text", "json_object", "json_schema"]},
            json_schema=_SCHEMA_FORMAT,
        ),
        "frequency_penalty": _number(-2, 2), "presence_penalty": _number(-2, 2),
        "n": _integer(1, 128), "seed": {"type": ["integer", "null"]}, "logprobs": _FLAG,
        "max_tokens": _integer(1), "max_completion_tokens": _integer(1),
        "reasoning_effort": {"enum": _EFFORTS}, "verbosity": {"enum": ["low", "medium", "high"]},
        "stop": {"type": ["string", "array", "null"], "maxItems": 4}, "logit_bias": _OBJECT,
        "modalities": _ANY, "prediction": _ANY, "audio": _ANY, "web_search_options": _ANY,
        "functions": _ANY, "function_call": _ANY,
    },
}  # fmt: skip
RESPONSES = {
    "type": "object",
    "required": ["model", "input"],
    "additionalProperties": False,
    "properties": {
        **_EITHER,
        "input": {"type": ["string", "array"], "items": _OBJECT},
        "instructions": {"type": ["string", "null"]},
        "tools": {
            "type": "array",
            "items": _object("type", "name", "parameters", type={"enum": ["function"]}, name=_NAME,
                             parameters=_OBJECT, strict={"type": ["boolean", "null"]}),
        },
        "text": _object(
            format=_object("type", type={"enum": ["text", "json_object", "json_schema"]},
                           name=_NAME, schema=_OBJECT),
            verbosity={"enum": ["low", "medium", "high"]},
        ),
        "reasoning": _object(effort={"enum": [*_EFFORTS, None]}),
        "max_output_tokens": _integer(16), "max_tool_calls": _integer(1),
        "include": {"type": ["array", "null"]}, "previous_response_id": {"type": "null"},
        "truncation": {"enum": ["auto", "disabled"]}, "background": {"enum": [False, None]},
    },
}  # fmt: skip
_WORDS = {"string": "a string", "integer": "an integer", "number": "a decimal", "null": "null",
          "boolean": "a boolean", "object": "an object", "array": "an array"}  # fmt: skip
_OF = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", dict: "an object",
       list: "an array", type(None): "null"}  # fmt: skip


def check(body: Any, rules: Mapping[str, Any], *, unknown: bool = False) -> dict[str, Any]:
    """The body itself, or Refused with the reason that OpenAI would give.

    `unknown`: what OpenAI does not know is taken too, as most other servers do.
    """
    if not isinstance(body, dict):
        raise Refused(400, "We could not parse the JSON body of your request: expected an object.")
    if "model" not in body:
        raise Refused(400, "you must provide a model parameter", param="model")
    rules = {**rules, "additionalProperties": unknown}
    errors = jsonschema_rs.Draft202012Validator(rules).iter_errors(body)
    found = [(len(each.instance_path), _order(each.schema_path, rules), each) for each in errors]
    if found:
        error = min(found, key=lambda each: each[:2])[2]
        raise _refused(error, rules)
    return body


def _order(path: Sequence[str | int], rules: Any) -> list[int]:
    """Where in the rules a path leads: what stands first is told first."""
    found = []
    for step in path:
        found.append(step if isinstance(step, int) else list(rules).index(step))
        rules = rules[step]
    return found


def _refused(error: jsonschema_rs.ValidationError, rules: Any) -> Refused:
    *path, keyword = error.schema_path
    for step in path:
        rules = rules[step]
    where, limit = _path(error.instance_path), rules[keyword]
    value: Any = error.instance
    match keyword:
        case "required":
            name = next(each for each in limit if each not in value)
            where = f"{where}.{name}" if where else name
            code = "missing_required_parameter"
            return Refused(400, f"Missing required parameter: '{where}'.", code, where)
        case "additionalProperties":
            name = next(each for each in value if each not in rules["properties"])
            return Refused(400, f"Unknown parameter: '{name}'.", "unknown_parameter", name)
        case "type":
            kinds = limit if isinstance(limit, list) else [limit]
            expected = " or ".join(_WORDS[each] for each in kinds)
            said = f"Invalid type for '{where}': expected {expected}, but got {_OF[type(value)]}"
            return Refused(400, f"{said} instead.", "invalid_type", where)
        case "enum":
            known = ", ".join(f"'{each}'" for each in limit)
            said = f"Invalid value: '{value}'. Supported values are: {known}."
            return Refused(400, said, "invalid_value", where)
        case "minimum" | "maximum":
            kind = "integer" if rules.get("type") == "integer" else "decimal"
            below = keyword == "minimum"
            side = "below minimum" if below else "above maximum"
            said = (
                f"Invalid '{where}': {kind} {side} value. Expected a value "
                f"{'>=' if below else '<='} {limit}, but got {value} instead."
            )
            code = f"{kind}_{'below_min' if below else 'above_max'}_value"
            return Refused(400, said, code, where)
        case "minItems":
            said = f"Invalid '{where}': empty array. Expected an array with minimum length 1."
            return Refused(400, said, "empty_array", where)
        case "maxItems":
            said = f"Invalid '{where}': array too long. Expected at most {limit}, got {len(value)}."
            return Refused(400, said, "array_above_max_length", where)
        case "maxLength":
            said = f"Invalid '{where}': string too long. Expected at most {limit} characters."
            return Refused(400, said, "string_above_max_length", where)
        case "minLength":
            return Refused(400, "you must provide a model parameter", param=where)
        case _:
            said = (
                f"Invalid '{where}': string does not match pattern. Expected a string that matches "
                f"the pattern '{limit}'."
            )
            return Refused(400, said, "invalid_value", where)


def _path(steps: Sequence[str | int]) -> str:
    found = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return found.removeprefix(".")


def check_format(wanted: Mapping[str, Any], where: str, messages: Sequence[Message]) -> None:
    """Refuse an output format that OpenAI refuses: `wanted` has type, name, schema, strict."""
    said_json = any("json" in each.text.lower() for each in messages)
    if wanted.get("type") == "json_object" and not said_json:
        said = "'messages' must contain the word 'json' in some form, to use"
        raise Refused(400, f"{said} '{where}' of type 'json_object'.", param="messages")
    if wanted.get("type") != "json_schema":
        return
    for name in ("name", "schema"):
        if name not in wanted:
            missing = f"{where}.{name}"
            said = f"Missing required parameter: '{missing}'."
            raise Refused(400, said, "missing_required_parameter", missing)
    if wanted.get("strict"):
        said = f"Invalid schema for response_format '{wanted['name']}'"
        _check_strict(wanted["schema"], said, where, None)


def check_tool(name: str, parameters: Any, strict: bool, where: str) -> None:
    """Refuse the parameters of a function that OpenAI refuses."""
    said, code = f"Invalid schema for function '{name}'", "invalid_function_parameters"
    if parameters and parameters.get("type") != "object":
        kind = parameters.get("type", "None")
        said += f": schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
        raise Refused(400, said, code, where)
    if strict:
        _check_strict(parameters, said, where, code)


def _check_strict(schema: Any, said: str, where: str, code: str | None) -> None:
    for path, each in _objects(schema, ()):
        if each.get("additionalProperties") is not False:
            why = "'additionalProperties' is required to be supplied and to be false."
        elif missing := set(each.get("properties") or {}) - set(each.get("required") or ()):
            why = (
                "'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{min(missing)}'."
            )
        else:
            continue
        raise Refused(400, f"{said}: In context={path!r}, {why}", code, where)


def _objects(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(schema, dict):
        if "properties" in schema or schema.get("type") == "object":
            yield path, schema
        for key, each in schema.items():
            if key not in ("enum", "const", "default"):
                yield from _objects(each, (*path, key))
    elif isinstance(schema, list):
        for at, each in enumerate(schema):
            yield from _objects(each, (*path, str(at)))


def check_tool_traffic(messages: Sequence[Message]) -> None:
    """Each tool call is answered at once, and nothing is answered that was not called."""
    waiting: set[str] = set()
    for at, message in enumerate([*messages, Message("user", "")]):
        if message.role == "tool":
            if message.call_id not in waiting:
                said = (
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceding message with 'tool_calls'."
                )
                raise Refused(400, said, param=f"messages[{at}].role")
            waiting.discard(message.call_id)
            continue
        if waiting:
            said = (
                "An assistant message with 'tool_calls' must be followed by tool messages "
                "responding to each 'tool_call_id'. The following tool_call_ids did not have "
                f"response messages: {', '.join(sorted(waiting))}"
            )
            raise Refused(400, said, param=f"messages[{at - 1}].role")
        waiting = {id_ for id_, *_ in message.calls}
