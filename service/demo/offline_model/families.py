"""How the servers that people use differ from OpenAI's: refusals, shapes, errors. Data first.

The words are those of public reports. A family is played with `--model-kind NAME`, so that what
a flow does there is seen without an account.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.demo.offline_model.request import Refused

_THOUGHT = "The message is short, so the answer is short too."
_SIGNATURE = "b2ZmbGluZQ=="  # what Gemini calls a thought signature


@dataclass(frozen=True)
class Family:
    """One kind of server. The defaults are what most of them do."""

    limit: str = "max_tokens"  # the one name of this limit that is taken; "" for either
    unknown: str = "ignored"  # an unknown parameter: ignored, or refused
    formats: tuple[str, ...] = ("text", "json_object", "json_schema")
    system: bool = True
    stream: str = "either"  # either; always (only streams are answered); options (refuses them)
    thinks: str = ""  # where its reasoning goes: a field of the message, or <think>, or parts
    returned: bool = False  # its reasoning must come back with the results of tools
    signed: bool = False  # so must the signature of each call
    call_id: str = "call_offline_{number}_{at}"
    id_form: str = ""  # what ids of calls must look like
    typed: bool = False  # an enum needs a type beside it
    same_index: bool = False  # parallel calls of a stream all say index 0
    comments: bool = False  # lines of comment in a stream
    filters: bool = False  # chunks without choices around a stream
    needs_key: bool = True
    error: str = "openai"  # the shape of an error
    prefix: str = ""  # before the names of its models
    tools_only_without_effort: bool = False  # on Chat Completions


FAMILIES: Mapping[str, Family] = {
    "offline": Family(limit="", unknown="refused"),
    "openai": Family(
        limit="max_completion_tokens", unknown="refused", tools_only_without_effort=True
    ),
    "azure": Family(limit="max_completion_tokens", unknown="refused", filters=True),
    "deepseek": Family(formats=("text", "json_object"), thinks="reasoning_content", returned=True),
    "qwen": Family(stream="always", thinks="reasoning_content"),
    "kimi": Family(
        thinks="reasoning_content", returned=True, typed=True, call_id="functions.{name}:{at}"
    ),
    "zhipu": Family(formats=("text", "json_object"), thinks="reasoning_content", error="coded"),
    "gemini": Family(limit="", signed=True, same_index=True, error="list", prefix="models/"),
    "mistral": Family(
        unknown="refused",
        stream="options",
        thinks="parts",
        call_id="off{number:04d}{at:02d}",
        id_form="[a-zA-Z0-9]{9}",
        error="mistral",
    ),
    "groq": Family(limit="", thinks="reasoning", unknown="refused"),
    "doubao": Family(limit="", thinks="reasoning_content"),
    "minimax": Family(limit="", formats=("text",), thinks="<think>"),
    "together": Family(thinks="<think>"),
    "xai": Family(limit="", thinks="reasoning_content"),
    "openrouter": Family(limit="", thinks="reasoning", comments=True, error="in_200"),
    "ollama": Family(thinks="reasoning", needs_key=False, error="bare"),
    "lmstudio": Family(formats=("text", "json_schema"), thinks="<think>", needs_key=False,
                       error="text"),
    "vllm": Family(limit="", thinks="<think>", needs_key=False, error="flat"),
    "llamacpp": Family(system=False, thinks="</think>", needs_key=False, error="numbered"),
    "litellm": Family(limit="", error="numbered"),
}  # fmt: skip


def refuse(family: Family, body: Mapping[str, Any]) -> None:
    """Raise Refused for what this kind of server does not take."""
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body and family.limit not in ("", name):
            raise _limit(family, name)
    if family.stream == "always" and body.get("stream") is not True:
        raise Refused(
            400,
            "This model only support stream mode, please enable the stream parameter to access "
            "the model.",
            "invalid_parameter_error",
        )
    if family.stream == "options" and "stream_options" in body:
        raise Refused(422, _extra("stream_options"), param="stream_options")
    wanted = (body.get("response_format") or {}).get("type", "text")
    if wanted not in family.formats:
        raise Refused(400, _no_format(family), param="response_format")
    messages = [each for each in body.get("messages") or () if isinstance(each, Mapping)]
    if not family.system and any(each.get("role") in ("system", "developer") for each in messages):
        raise Refused(400, "System role not supported")
    for message in messages:
        _refuse_message(family, message)
    for tool in body.get("tools") or ():
        _refuse_tool(family, tool)
    thinks = family.tools_only_without_effort and body.get("reasoning_effort") != "none"
    if thinks and body.get("tools"):
        said = (
            f"Function tools with reasoning_effort are not supported for {body.get('model')} "
            "in /v1/chat/completions. Please use /v1/responses instead."
        )
        raise Refused(400, said, param="reasoning_effort")


def _limit(family: Family, name: str) -> Refused:
    if name == "max_completion_tokens":
        return Refused(422, _extra(name), param=name)
    said = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead."
    )
    return Refused(400, said, "unsupported_parameter", name)


def _extra(name: str) -> str:
    where = {"type": "extra_forbidden", "loc": ["body", name]}
    return json.dumps({"detail": [{**where, "msg": "Extra inputs are not permitted"}]})


def _no_format(family: Family) -> str:
    if "json_schema" not in family.formats:
        return "This response_format type is unavailable now"
    return "'response_format.type' must be 'json_schema' or 'text'"


def _refuse_message(family: Family, message: Mapping[str, Any]) -> None:
    calls = message.get("tool_calls") or ()
    if not calls or message.get("role") != "assistant":
        return
    if family.returned and not message.get(family.thinks):
        said = f"The `{family.thinks}` in the thinking mode must be passed back to the API."
        raise Refused(400, said)
    for call in calls:
        if family.signed and _SIGNATURE not in json.dumps(call.get("extra_content")):
            said = "Function call is missing a thought_signature in functionCall parts."
            raise Refused(400, said)
        if family.id_form and not re.fullmatch(family.id_form, str(call.get("id"))):
            said = (
                f"Tool call id was {call.get('id')} but must be a-z, A-Z, 0-9, with a length of 9."
            )
            raise Refused(400, said, "invalid_function_call")
        try:
            given = json.loads(call["function"]["arguments"])
        except (ValueError, TypeError, KeyError):
            given = None
        if not isinstance(given, dict):
            raise Refused(400, "arguments must be valid JSON")


def _refuse_tool(family: Family, tool: Any) -> None:
    parameters = tool.get("function", {}).get("parameters") if isinstance(tool, Mapping) else None
    if not family.typed or not isinstance(parameters, Mapping):
        return
    for name, each in (parameters.get("properties") or {}).items():
        if isinstance(each, Mapping) and "enum" in each and "type" not in each:
            said = (
                "Invalid request: tools.function.parameters is not a valid moonshot flavored json "
                f"schema, details: <At path 'properties.{name}': type is not defined>"
            )
            raise Refused(400, said)


# Answers


def dress(family: Family, answer: dict[str, Any], number: int) -> dict[str, Any]:
    """A whole answer as this kind of server gives it."""
    message = answer["choices"][0]["message"]
    for at, call in enumerate(message.get("tool_calls") or ()):
        _dress_call(family, call, number, at)
    text = message.get("content")
    match family.thinks:
        case "":
            pass
        case "parts":
            if text is not None:
                message["content"] = _parts(text)
        case "<think>" | "</think>":
            message["content"] = _think(family) + (text or "")
        case field:
            message[field] = _THOUGHT
    return answer


def dress_stream(
    family: Family, chunks: Iterator[dict[str, Any]], number: int
) -> Iterator[dict[str, Any] | str]:
    """The chunks of a stream as this kind of server sends them; a text is a comment."""
    if family.comments:
        yield ": OPENROUTER PROCESSING"
    first = True
    for chunk in chunks:
        if family.filters and first:
            yield {**chunk, "id": "", "choices": [], "prompt_filter_results": []}
        delta = chunk["choices"][0]["delta"] if chunk["choices"] else {}
        for call in delta.get("tool_calls") or ():
            if "id" in call:
                _dress_call(family, call, number, call["index"])
            if family.same_index:
                call["index"] = 0
        if family.thinks == "parts" and isinstance(delta.get("content"), str) and not first:
            delta["content"] = [{"type": "text", "text": delta["content"]}]
        yield chunk
        if first and family.thinks:
            for piece in _thinking(family):
                yield {**chunk, "choices": [{**chunk["choices"][0], "delta": piece}]}
        first = False
    if family.filters:
        yield {"id": "", "object": "", "model": "", "choices": [
            {"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 1}}
        ]}  # fmt: skip


def _dress_call(family: Family, call: dict[str, Any], number: int, at: int) -> None:
    name = call["function"]["name"]
    call["id"] = family.call_id.format(number=number % 10_000, at=at, name=name)
    if family.signed:
        call["extra_content"] = {"google": {"thought_signature": _SIGNATURE}}


def _think(family: Family) -> str:
    head = "<think>\n" if family.thinks == "<think>" else ""  # else it stood in the prompt
    return f"{head}{_THOUGHT}\n</think>\n\n"


def _parts(text: str) -> list[dict[str, Any]]:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": _THOUGHT}]}
    return [thought, {"type": "text", "text": text}]


def _thinking(family: Family) -> Iterator[dict[str, Any]]:
    words = re.findall(r"\S+\s*", _THOUGHT)
    if family.thinks == "parts":
        yield {"content": _parts("")[:1]}
    elif family.thinks.startswith("<"):
        yield from ({"content": piece} for piece in re.findall(r"<[^>]*>|\S+|\s+", _think(family)))
    else:
        yield from ({family.thinks: word} for word in words)


# Errors

_Shape = Callable[[int, str, str | None, str | None], Any]
_SHAPES: Mapping[str, _Shape] = {
    "openai": lambda status, said, code, param: {
        "error": {"message": said, "type": _type(status), "param": param, "code": code}
    },
    "list": lambda status, said, code, param: [
        {"error": {"code": status, "message": said, "status": "INVALID_ARGUMENT"}}
    ],
    "mistral": lambda status, said, code, param: {
        "object": "error",
        "message": json.loads(said) if said.startswith("{") else said,
        "type": code or "invalid_request_error",
        "param": param,
        "code": None,
    },
    "bare": lambda status, said, code, param: {
        "error": {"message": said, "type": "api_error", "param": None, "code": None}
    },
    "text": lambda status, said, code, param: {"error": said},
    "flat": lambda status, said, code, param: {
        "object": "error", "message": said, "type": "BadRequestError", "param": param,
        "code": status,
    },
    "numbered": lambda status, said, code, param: {
        "error": {"message": said, "type": code or "BadRequestError", "param": param,
                  "code": str(status)}
    },
    "coded": lambda status, said, code, param: {"error": {"code": "1210", "message": said}},
    "in_200": lambda status, said, code, param: {
        "error": {"message": "Provider returned error", "code": status, "metadata": {"raw": said}}
    },
}  # fmt: skip


def error_body(family: Family, status: int, said: str, code: str | None, param: str | None) -> Any:
    """The body of an error as this kind of server writes it."""
    return _SHAPES[family.error](status, said, code, param)


def _type(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"
