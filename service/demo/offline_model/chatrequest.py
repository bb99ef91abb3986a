"""A Chat Completions request as the offline model reads it, checked as OpenAI checks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.demo.offline_model import pictures
from service.demo.offline_model.toolcalls import Tool

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class Refused(Exception):
    """The request is answered with an error, in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


@dataclass(frozen=True)
class Message:
    """One message: its text, pictures and URLs that can't be opened, and tool traffic."""

    role: str
    text: str
    pictures: tuple[pictures.Picture, ...] = ()
    links: tuple[str, ...] = ()
    calls: tuple[tuple[str, str, str], ...] = ()  # id, name, arguments as JSON
    call_id: str = ""


@dataclass(frozen=True)
class ChatRequest:
    """What the client asks for."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Any = "auto"
    format: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    include_usage: bool = False


def parse(body: Any) -> ChatRequest:
    """The request, or Refused with the reason that OpenAI would give."""
    if not isinstance(body, dict):
        raise Refused(400, "We could not parse the JSON body of your request: expected an object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refused(400, "you must provide a model parameter", param="model")
    if model.startswith("gpt-3.5-turbo"):
        raise Refused(404, shut_down(model), "model_not_found", "model")
    raw = body.get("messages")
    if raw is None:
        raise Refused(
            400, "Missing required parameter: 'messages'.", "missing_required_parameter", "messages"
        )
    if not isinstance(raw, list):
        raise _wrong("messages", "an array of objects")
    if not raw:
        raise Refused(
            400, "Invalid 'messages': empty array. Expected at least 1 message.",
            "empty_array", "messages",
        )  # fmt: skip
    messages = tuple(_message(each, f"messages[{at}]") for at, each in enumerate(raw))
    _check_tool_traffic(messages)
    options = body.get("stream_options")
    return ChatRequest(
        model=model,
        messages=messages,
        tools=_tools(body.get("tools")),
        tool_choice=body.get("tool_choice", "auto"),
        format=_format(body.get("response_format")),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def shut_down(model: str) -> str:
    """What OpenAI says of a model that is no more."""
    return (
        f"The model `{model}` has been deprecated, learn more here: "
        "https://platform.openai.com/docs/deprecations"
    )


def _wrong(param: str, expected: str) -> Refused:
    return Refused(400, f"Invalid type for '{param}': expected {expected}.", "invalid_type", param)


def _message(raw: Any, where: str) -> Message:
    if not isinstance(raw, dict):
        raise _wrong(where, "an object")
    role, content = raw.get("role"), raw.get("content")
    if role not in _ROLES:
        supported = ", ".join(f"'{each}'" for each in _ROLES)
        raise Refused(
            400, f"Invalid value: '{role}'. Supported values are: {supported}.",
            "invalid_value", f"{where}.role",
        )  # fmt: skip
    calls = tuple(_call(each) for each in raw.get("tool_calls") or ())
    call_id = str(raw.get("tool_call_id") or "")
    if content is None and role == "assistant":
        return Message(role, "", calls=calls)
    if isinstance(content, str):
        return Message(role, content, calls=calls, call_id=call_id)
    if not isinstance(content, list):
        raise _wrong(f"{where}.content", "a string or an array of objects")
    texts: list[str] = []
    seen: list[pictures.Picture] = []
    links: list[str] = []
    for at, part in enumerate(content):
        _part(part, f"{where}.content[{at}]", texts, seen, links)
    return Message(role, "\n".join(texts), tuple(seen), tuple(links), calls, call_id)


def _part(
    part: Any, where: str, texts: list[str], seen: list[pictures.Picture], links: list[str]
) -> None:
    match part:
        case {"type": "text", "text": str(text)}:
            texts.append(text)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            try:
                picture = pictures.read(url)
            except pictures.BadPicture as error:
                raise Refused(400, f"Invalid image: {error}.", "invalid_image_url", where) from None
            if picture is None:
                links.append(url)
            else:
                seen.append(picture)
        case _:
            raise Refused(400, f"Invalid content part at '{where}'.", "invalid_value", where)


def _call(raw: Any) -> tuple[str, str, str]:
    match raw:
        case {"id": str(id_), "function": {"name": str(name), "arguments": str(arguments)}}:
            return id_, name, arguments
        case _:
            raise _wrong("messages[].tool_calls[]", "an object with id and function")


def _check_tool_traffic(messages: Sequence[Message]) -> None:
    """Each tool call is answered at once, and nothing is answered that was not called."""
    waiting: set[str] = set()
    for at, message in enumerate(messages):
        if message.role == "tool":
            if message.call_id not in waiting:
                raise Refused(
                    400,
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceding message with 'tool_calls'.",
                    param=f"messages[{at}].role",
                )
            waiting.discard(message.call_id)
        else:
            _check_answered(waiting, at)
            waiting = {id_ for id_, *_ in message.calls}
    _check_answered(waiting, len(messages))


def _check_answered(waiting: set[str], at: int) -> None:
    if waiting:
        raise Refused(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            + ", ".join(sorted(waiting)),
            param=f"messages[{at - 1}].role",
        )


def _tools(raw: Any) -> tuple[Tool, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise _wrong("tools", "an array of objects")
    tools = []
    for at, each in enumerate(raw):
        match each:
            case {"type": "function", "function": {"name": str(name)} as function}:
                parameters = function.get("parameters") or {}
                if not isinstance(parameters, dict):
                    raise _wrong(f"tools[{at}].function.parameters", "an object")
                tools.append(Tool(name, str(function.get("description") or ""), parameters))
            case _:
                raise _wrong(f"tools[{at}]", "a function with a name")
    return tuple(tools)


def _format(raw: Any) -> Mapping[str, Any]:
    match raw:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case {"type": "json_schema", "json_schema": {"schema": dict()}}:
            return dict(raw)
        case _:
            raise Refused(400, "Invalid 'response_format'.", "invalid_value", "response_format")
