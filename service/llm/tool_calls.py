"""Tool calls as servers really send them: in deltas whose index can't be trusted, with arguments
that are none, or as text that the server should have parsed. Pure.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from service.bodies import parsed
from service.errors import ErrorKind, ModelError
from service.llm.growing_text import GrowingText
from service.llm.json_within import documents


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model wants called; `arguments` is JSON text, as far as the model wrote any.

    `echo`: what came beside it and goes back with it (Gemini's thought signature).
    """

    id: str
    name: str
    arguments: str
    echo: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Growing:
    index: int | None
    id: str = ""
    name: str = ""
    arguments: GrowingText = field(default_factory=GrowingText)
    echo: dict[str, Any] = field(default_factory=dict)


MOST_CALLS = 64
MOST_NAME = 2_000  # characters of a call's name and its id
MOST_LOOKED_AT = 64 << 10  # characters; arguments beyond are not tried for being whole


class Calls:
    """Gathers the calls of one answer, from one message or from a stream's deltas."""

    def __init__(self) -> None:
        self._calls: list[_Growing] = []

    def add(self, piece: Mapping[str, Any]) -> int:
        """A piece of a call, or a whole one; its size. Raises TypeError, AttributeError, and
        ModelError for more than anybody needs."""
        function = piece.get("function") or piece  # a few servers leave the level out
        id, name = str(piece.get("id") or ""), str(function.get("name") or "")
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        arguments = arguments or ""
        call = self._begun(piece.get("index"), id, name, arguments)
        if call is None:
            call = _Growing(piece.get("index"))
            if not name and self._calls:  # it goes on with the same function
                call.name = self._calls[-1].name
            self._calls.append(call)
        call.id = call.id or id
        if name != call.name:
            call.name += name
        call.arguments.add(arguments)
        if extra := piece.get("extra_content"):
            call.echo["extra_content"] = extra
        if len(self._calls) > MOST_CALLS:
            raise _too_much(f"more than {MOST_CALLS} tools at once")
        if len(call.name) + len(call.id) > MOST_NAME:
            raise _too_much(f"a tool with more than {MOST_NAME} characters in its name")
        return len(id) + len(name) + len(arguments)

    def _begun(self, index: Any, id: str, name: str, arguments: str) -> _Growing | None:
        """The call that this piece goes on with; None if it begins one."""
        if id and (same := [call for call in self._calls if call.id == id]):
            again = _whole(same[-1]) and arguments.lstrip().startswith("{")
            return None if again else same[-1]
        at = [call for call in self._calls if index is not None and call.index == index]
        if not at and (id or name or not self._calls):
            return None
        call = at[-1] if at else self._calls[-1]
        if (id and call.id) or (name and index is None):
            return None
        if (name or arguments.lstrip().startswith("{")) and _whole(call):
            return None
        return call

    def all(self) -> tuple[ToolCall, ...]:
        """The calls in their order, each with an id of its own, or none."""
        seen: set[str] = set()
        found = []
        for number, call in enumerate(self._calls):
            id = call.id if call.id not in seen else f"{call.id}_{number}"
            seen.add(id)
            arguments = normal_arguments(call.arguments.text)
            found.append(ToolCall(id, call.name, arguments, call.echo))
        return tuple(found)


def _too_much(what: str) -> ModelError:
    text = f"the model calls {what}"
    return ModelError(text, code="model_answer_too_large", kind=ErrorKind.ANSWER)


def _whole(call: _Growing) -> bool:
    return call.arguments.size <= MOST_LOOKED_AT and _complete(call.arguments.text)


def _complete(arguments: str) -> bool:
    try:
        return isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return False


def normal_arguments(text: str) -> str:
    """Nothing and null are no arguments; an object in quotes is that object."""
    try:
        value = parsed(text) if text.strip() else None
        if isinstance(value, str):
            value = parsed(value) if value.strip() else None
    except ValueError:
        return text
    if value is None:
        return "{}"
    return orjson.dumps(value).decode() if isinstance(value, dict) else text


def sendable_arguments(text: str) -> str:
    """What may go back to any server: an object, also for what was none."""
    return text if _complete(text) else "{}"


def short_id(id: str, length: int) -> str:
    """An id of exactly so many letters and digits; the same one gives the same."""
    if len(id) == length and id.isascii() and id.isalnum():
        return id
    return hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()[:length]


_GIVEN = ("arguments", "parameters", "args")

# Calls that a server handed over as text

_NAME = (
    re.compile(r"<function=([\w.:-]+)"),  # Llama, Qwen Coder
    re.compile(r"<invoke name=\"([\w.-]+)\""),  # MiniMax, DeepSeek 3.2
    re.compile(r"\bto=(?:functions\.)?([\w-]+)"),  # gpt-oss
    re.compile(r"functions\.([\w-]+):\d+"),  # Kimi K2
    re.compile(r"<｜tool▁sep｜>\s*([\w-]+)"),  # DeepSeek
    re.compile(r"call:([\w-]+)\s*\{"),  # Gemma 4
    re.compile(r"^\s*<tool_call>\s*([\w-]+)\s*(?:<arg_key>|</tool_call>|$)"),  # GLM
)
# A parameter: where it begins, where its value begins and where that ends.
_PARAMETER = (
    (re.compile(r"<parameter=([\w.-]+)>"), None, re.compile(r"</parameter>")),
    (
        re.compile(r"<parameter name=\"([\w.-]+)\"[^<>]*>"),
        None,
        re.compile(r"</(?:[^\w<]*\w*[^\w<]*)?parameter>"),
    ),
    (
        re.compile(r"<arg_key>([^<]*)</arg_key>"),
        re.compile(r"\s*<arg_value>"),
        re.compile(r"</arg_value>"),
    ),
)
_BEGINS = re.compile(
    r"(?=<function=|<invoke name=|functions\.[\w-]+:\d+|<｜tool▁sep｜>|\bto=functions\.)"
)


def calls_in(
    texts: Collection[str], tools: Mapping[str, Mapping[str, Any]]
) -> tuple[ToolCall, ...] | None:
    """The calls in pieces of text that are calls; None if one of them can't be read.

    `tools` gives the JSON Schema of each tool's arguments.
    """
    found: list[ToolCall] = []
    for text in texts:
        made = list(_from_json(text, tools)) or list(_from_tags(text, tools))
        if not made:
            return None
        found += made
    return tuple(replace(call, id=f"text_{number}") for number, call in enumerate(found))


def calls_as_answer(text: str, tools: Mapping[str, Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    """The calls that are all of an answer, written without any mark around them."""
    body = re.sub(r"^```\w*\n|\n```$", "", text.strip()).strip()
    if not body.startswith(("{", "[")) or not tools:
        return ()
    made = tuple(_from_json(body, tools)) or tuple(_from_python(body, tools))
    if any(call.name not in tools for call in made):
        return ()
    return tuple(replace(call, id=f"text_{number}") for number, call in enumerate(made))


def _from_json(text: str, tools: Mapping[str, Any]) -> Iterator[ToolCall]:
    """{"name": …, "arguments": {…}}, one or several, somewhere in the text."""
    for value, _, _ in documents(text):
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                continue
            inner = one.get("function")
            one = inner if isinstance(inner, dict) else one
            name = one.get("name") or one.get("tool") or (inner if isinstance(inner, str) else None)
            given: Any = next((one[key] for key in _GIVEN if key in one), {})
            if isinstance(name, str) and name.removeprefix("functions.") and _is_call(one):
                text = given if isinstance(given, str) else orjson.dumps(given).decode()
                yield ToolCall("", name.removeprefix("functions."), normal_arguments(text))


def _is_call(one: Mapping[str, Any]) -> bool:
    known = {"name", "tool", "arguments", "parameters", "args", "id", "type", "index", "function"}
    return one.keys() <= known


def _from_tags(text: str, tools: Mapping[str, Mapping[str, Any]]) -> Iterator[ToolCall]:
    """A name in a tag, and its arguments as JSON or in tags of their own."""
    for part in _BEGINS.split(text):
        name = next((found[1] for one in _NAME if (found := one.search(part))), None)
        if name is None:
            continue
        schema = tools.get(name, {})
        pairs = list(_pairs(part))
        if pairs:
            given = {key.strip(): _typed(key.strip(), value, schema) for key, value in pairs}
            yield ToolCall("", name, orjson.dumps(given).decode())
            continue
        value = next((one for one, _, _ in documents(part) if isinstance(one, dict)), {})
        yield ToolCall("", name, orjson.dumps(value).decode())


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Names and values of parameters in tags."""
    for opens, between, closes in _PARAMETER:
        at = 0
        while (found := opens.search(text, at)) is not None:
            at = found.end()
            if between is not None:
                if (more := between.match(text, at)) is None:
                    continue
                at = more.end()
            end = closes.search(text, at)
            if end is None:
                break  # nor has any after it
            value = text[at : end.start()]
            yield found[1], value.removeprefix("\n").removesuffix("\n")
            at = end.end()


def _typed(key: str, value: str, schema: Mapping[str, Any]) -> Any:
    """A tag's text as what the schema wants there."""
    wanted = (schema.get("properties") or {}).get(key) or {}
    kind, options = wanted.get("type"), wanted.get("enum") or ()
    if kind == "string" or (kind is None and value in options):
        return value
    try:
        return orjson.loads(value.strip().lower() if kind == "boolean" else value)
    except orjson.JSONDecodeError:
        return value


def _from_python(text: str, tools: Mapping[str, Any]) -> Iterator[ToolCall]:
    """[set_light(room="kitchen", on=True)], as Llama writes it."""
    try:
        tree = ast.parse(text[:4000], mode="eval").body
        items = tree.elts if isinstance(tree, ast.List) else []
        for item in items:
            if not (isinstance(item, ast.Call) and isinstance(item.func, ast.Name)):
                return
            given = {one.arg: ast.literal_eval(one.value) for one in item.keywords if one.arg}
            yield ToolCall("", item.func.id, orjson.dumps(given).decode())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return
