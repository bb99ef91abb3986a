"""OpenAI's Responses API: the same question as its request's body, what comes back as the same
answer. Nothing is stored there: reasoning goes back encrypted within a tool loop. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.errors import ErrorKind, ModelError
from service.llm import failures
from service.llm.answers import MAX_ANSWER, Completion, size_of
from service.llm.chat_completions import (
    IncomingAnswer,
    Question,
    bind_to_schema,
    longest,
    only_text,
    raise_error,
    typed,
)
from service.llm.providers import Dialect
from service.llm.tool_calls import sendable_arguments
from service.llm.usage import usage_of

PATH = "responses"
_RENAMED = {"max_completion_tokens": "max_output_tokens", "max_tokens": "max_output_tokens"}
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def body(question: Question, dialect: Dialect, *, stream: bool) -> dict[str, Any]:
    """The request; `options` are Chat Completions' and get the names they have here."""
    options = dict(question.options)
    note = bind_to_schema(options, dialect)
    made: dict[str, Any] = {
        "model": question.model.model,
        "input": list(_input(question, note)),
        "store": False,
        "stream": stream,
        "include": ["reasoning.encrypted_content"],
    }
    if (most := longest(question, dialect)) is not None:
        made["max_output_tokens"] = most
    if tools := options.pop("tools", None):
        made["tools"] = [_tool(tool) for tool in tools]
    if effort := options.pop("reasoning_effort", None):
        made["reasoning"] = {"effort": effort}
    text = {"verbosity": options.pop("verbosity", None), "format": _format(options)}
    if text := {name: value for name, value in text.items() if value}:
        made["text"] = text
    made |= {_RENAMED.get(name, name): value for name, value in options.items()}
    for name in dialect.without:
        made.pop("reasoning" if name == "reasoning_effort" else name, None)
    return made


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)
    schema = typed(function.get("parameters") or {})
    return {"type": "function", **function, "parameters": schema, "strict": _strict(schema)}


def _format(options: dict[str, Any]) -> dict[str, Any] | None:
    wanted = options.pop("response_format", None)
    if not isinstance(wanted, Mapping):
        return None
    if wanted.get("type") != "json_schema":
        return dict(wanted)
    bound = wanted["json_schema"]
    return {"type": "json_schema", **bound, "strict": _strict(bound["schema"])}


def _strict(schema: Any) -> bool:
    """Whether OpenAI can hold the model to it exactly: nothing optional, nothing more."""
    if isinstance(schema, list):
        return all(_strict(one) for one in schema)
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = schema.get("properties") or {}
        if schema.get("additionalProperties") is not False:
            return False
        if set(schema.get("required") or ()) != set(names):
            return False
    return all(_strict(value) for key, value in schema.items() if key != "enum")


def _input(question: Question, note: str) -> Iterator[Mapping[str, Any]]:
    messages = question.messages
    if note and messages and messages[0]["role"] == "system":
        messages = (
            {"role": "system", "content": f"{messages[0]['content']}\n\n{note}"},
            *messages[1:],
        )
    elif note:
        messages = ({"role": "system", "content": note}, *messages)
    for message in messages:
        if message["role"] == "tool":
            yield {
                "type": "function_call_output",
                "call_id": message["tool_call_id"],
                "output": message["content"],
            }
        elif "tool_calls" in message:
            yield from _round(message, str(question.model))
        else:
            yield {"role": message["role"], "content": _content(message["content"])}


def _round(message: Mapping[str, Any], model: str) -> Iterator[Mapping[str, Any]]:
    echo = message.get("echo") or {}
    if message.get("content"):
        yield {"role": "assistant", "content": message["content"]}
    if echo.get("model") == model:
        yield from echo["fields"].get("items") or ()
    for call in message["tool_calls"]:
        yield {
            "type": "function_call",
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": sendable_arguments(call["function"]["arguments"]),
        }


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    made = []
    for part in content:
        if part.get("type") == "image_url":
            made.append({"type": "input_image", "image_url": part["image_url"]["url"]})
        else:
            made.append({"type": "input_text", "text": part.get("text", "")})
    return made


class ResponsesAnswer(IncomingAnswer):
    """An answer of the Responses API."""

    def __init__(self, question: Question, most: int = MAX_ANSWER) -> None:
        super().__init__(question, most)
        self._said = False

    def _add(self, event: Any) -> str:
        self._gathered.restarted = False
        kind = event.get("type")
        if kind is None:
            return self._whole(event)
        if kind in _ENDS:
            return self._whole(event["response"])
        if kind == "error":
            raise failures.failure(200, {"error": event}, {}, self._question.model)
        if kind == "response.output_text.delta":
            self._said = True
            return self._gathered.say(event["delta"])
        return ""

    def _whole(self, response: Mapping[str, Any]) -> str:
        gathered = self._gathered
        raise_error(response, self._question.model)
        status = only_text(response.get("status")) or "completed"
        reason = str((response.get("incomplete_details") or {}).get("reason"))
        gathered.finish = "stop" if status == "completed" else _FINISH.get(reason, status)
        gathered.model = only_text(response.get("model")) or gathered.model
        gathered.usage = usage_of(response)
        text, items = "", []
        for item in response["output"]:
            match item["type"]:
                case "message" if not self._said:
                    text += gathered.say(_texts(item, "output_text", "text"))
                    refusal = _texts(item, "refusal", "refusal")
                    gathered.count(size_of(refusal))
                    gathered.refusal += refusal
                case "function_call":
                    call = {**item, "id": item.get("call_id") or item.get("id")}
                    gathered.count(gathered.calls.add(call))
                case "reasoning":
                    items.append({key: value for key, value in item.items() if key != "status"})
                    gathered.think(_texts({"content": item.get("summary")}, "summary_text", "text"))
        if items:
            gathered.echo["items"] = items
        return text

    def rest(self) -> str:
        """The text that became certain with the end."""
        return self._gathered.rest()

    def completion(self) -> Completion:
        """Raises ModelError."""
        if self._gathered.finish is None:
            raise ModelError(
                "the model's stream broke off", code="model_connection", kind=ErrorKind.PASSING
            )
        return self._gathered.completion()


def _texts(item: Mapping[str, Any], kind: str, name: str) -> str:
    parts = item.get("content") or ()
    return "".join(part[name] for part in parts if part.get("type") == kind)
