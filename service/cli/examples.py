"""`emqx-gpt test`: examples with expectations, for pipelines. Nothing is published or stored."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from rich.text import Text

from service import flows as flows_file
from service import safe_text, settings
from service.answering.intake import new_id
from service.answering.remote import Remote
from service.answering.replay import ReplayAnswer, Replayer
from service.cli.common import console, say_json
from service.cli.model_check import model_of, replayer
from service.domain import Message
from service.errors import ConfigError, Fault
from service.flows import Flow, Flows, lines
from service.flows.regex import Regex, RegexError
from service.inbox import epoch_ms

AT_ONCE = 4
USER = "test"  # the conversation of an example that names no topic
SHOWN = 300  # characters of an answer beside a failure


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Expect(BaseModel):
    """What an answer must be; all that is given has to hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contains: Texts = ()
    lacks: Texts = ()
    matches: Texts = ()
    json_has: dict[str, Any] | None = Field(None, alias="json")
    tool: str | None = None
    arguments: dict[str, Any] | None = None
    no_tools: bool = False
    error: str | None = None
    max_seconds: float | None = Field(None, gt=0)
    max_tokens: int | None = Field(None, gt=0)
    max_usd: float | None = Field(None, gt=0)


class Example(BaseModel):
    """One message, and what its answer must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    flow: str
    payload: str
    topic: str | None = None
    expect: Expect = Field(default_factory=Expect)  # an answer at all


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tests: tuple[Example, ...] = Field(min_length=1)


def read(path: Path, flows: Flows) -> tuple[Example, ...]:
    """Raises ConfigError with each fault's line."""
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"there is no {path}; docs/replay.md shows one") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    where = lines.scan(text)
    try:
        examples = _File.model_validate(document).tests
    except ValidationError as error:
        faults = [
            _fault(path, where, one["loc"], _in_words(one["type"], one["msg"]))
            for one in error.errors()
        ]
        raise ConfigError(str(faults[0]), tuple(faults)) from None
    faults = [
        _fault(path, where, ("tests", at, *key), text)
        for at, example in enumerate(examples)
        for key, text in _wrong(example, flows)
    ]
    if faults:
        raise ConfigError(str(faults[0]), tuple(faults))
    return examples


def _in_words(kind: str, text: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such key; docs/replay.md lists them"
    return "is missing" if kind == "missing" else text.removeprefix("Value error, ")


def _fault(path: Path, where: lines.Lines, key: Sequence[Any], text: str) -> Fault:
    line = where.of(tuple(key))
    name = ".".join(str(part) for part in key if not isinstance(part, int))
    return Fault(f"{path}:{line}: {name}" if line else f"{path}: {name}", text)


def _wrong(example: Example, flows: Flows) -> Iterator[tuple[tuple[str, ...], str]]:
    flow = flows.flows.get(example.flow)
    if flow is None:
        yield ("flow",), f"no flow {example.flow!r}; there are: {', '.join(flows.flows)}"
        return
    if example.topic is not None and flow.match(example.topic) is None:
        listed = ", ".join(pattern.filter for pattern in flow.request)
        yield ("topic",), f"the flow does not listen there; it does to {listed}"
    tools = [tool.name for tool in flow.tools]
    remote = Remote(names=flow.tools_from)
    wanted = example.expect.tool
    if wanted is not None and wanted not in tools and not remote.meant(wanted):
        yield ("expect", "tool"), f"the flow has no such tool; it has: {', '.join(tools) or 'none'}"
    if example.expect.arguments is not None and example.expect.tool is None:
        yield ("expect", "arguments"), "name the tool as well"
    for pattern in example.expect.matches:
        try:
            Regex(pattern)
        except RegexError as error:
            yield ("expect", "matches"), f"{error.message}; {error.hint}"


async def test(file: Path, *, flows: Path | None, model: str | None, as_json: bool) -> None:
    """Raises ConfigError; exit 1 if an example fails."""
    loaded = settings.load()
    found = flows_file.load(flows or loaded.flows, model=loaded.openai_model)
    examples = read(file, found)
    other = model_of(model, found)
    out, failed = console(), 0
    places = asyncio.Semaphore(AT_ONCE)
    async with replayer(loaded, found, None, AT_ONCE) as asks:

        async def one(example: Example) -> ReplayAnswer:
            flow = asks.flow_of(example.flow, other)
            if flow is None:
                raise AssertionError("its flow is known")
            async with places:
                return await _ask(asks, flow, example)

        running = [asyncio.create_task(one(example)) for example in examples]
        for example, task in zip(examples, running, strict=True):
            said = await task
            wrong = list(unmet(example.expect, said))
            failed += bool(wrong)
            if as_json:
                say_json({"name": example.name, "ok": not wrong, "wrong": wrong, "text": said.text})
                continue
            mark = Text("FAIL", "bold red") if wrong else Text("ok  ", "green")
            seconds = Text(f" ({said.seconds:.1f} s)", style="dim")
            out.print(Text.assemble(mark, " ", safe_text.shown(example.name), seconds))
            for line in wrong:
                out.print(Text(f"     {safe_text.shown(line)}"))
    if not as_json:
        out.print(f"{len(examples) - failed} of {len(examples)} as expected")
    if failed:
        raise typer.Exit(1)


async def _ask(asks: Replayer, flow: Flow, example: Example) -> ReplayAnswer:
    now = epoch_ms()
    message = Message(
        id=new_id(now),
        topic=example.topic or flow.topic_for(USER),
        payload=example.payload.encode("utf-8", "surrogatepass"),
        received_at=now,
        flow=flow.name,
    )
    captured = flow.match(message.topic) or {}
    return await asks.ask(flow, message, flow.conversation_of(message, captured))


def unmet(expect: Expect, said: ReplayAnswer) -> Iterator[str]:
    """What of it does not hold, in words."""
    text = said.text or ""
    if expect.error is not None:
        if said.code != expect.error:
            yield f"expected the error {expect.error}, got {said.code or 'an answer'}"
        return
    if said.code is not None:
        yield f"no answer: {said.code}: {said.message}"
        return
    short = text if len(text) <= SHOWN else text[:SHOWN] + " …"
    for wanted in expect.contains:
        if wanted.casefold() not in text.casefold():
            yield f"lacks {wanted!r}: {short}"
    for unwanted in expect.lacks:
        if unwanted.casefold() in text.casefold():
            yield f"has {unwanted!r}: {short}"
    for pattern in expect.matches:
        if Regex(pattern).search(text) is None:
            yield f"does not match {pattern!r}: {short}"
    if expect.json_has is not None:
        yield from _in_json(expect.json_has, text)
    yield from _tools(expect, said)
    if expect.max_seconds is not None and said.seconds > expect.max_seconds:
        yield f"took {said.seconds:.1f} s, more than {expect.max_seconds:g} s"
    if expect.max_tokens is not None and said.usage.total_tokens > expect.max_tokens:
        yield f"took {said.usage.total_tokens} tokens, more than {expect.max_tokens}"
    if expect.max_usd is not None:
        if said.usage.cost is None:
            yield "no price of its model is known: add [prices] to flows.toml"
        elif said.usage.cost > expect.max_usd:
            yield f"cost ${said.usage.cost:.6f}, more than ${expect.max_usd:g}"


def _in_json(wanted: Mapping[str, Any], text: str) -> Iterator[str]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        yield f"is not JSON: {text[:SHOWN]}"
        return
    if not _within(wanted, document):
        yield f"lacks {orjson.dumps(wanted).decode()}: {text[:SHOWN]}"


def _tools(expect: Expect, said: ReplayAnswer) -> Iterator[str]:
    called = [f"{name}({orjson.dumps(arguments).decode()})" for name, arguments in said.calls]
    if expect.no_tools and called:
        yield f"called {', '.join(called)}"
    if expect.tool is None:
        return
    fits = any(
        name == expect.tool and _within(expect.arguments or {}, arguments)
        for name, arguments in said.calls
    )
    if not fits:
        wanted = f"{expect.tool}({orjson.dumps(expect.arguments or {}).decode()})"
        yield f"did not call {wanted}; it called {', '.join(called) or 'nothing'}"


def _within(wanted: Any, found: Any) -> bool:
    """Whether all that is wanted is there; more may be."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and _within(value, found[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and all(
            any(_within(one, other) for other in found) for one in wanted
        )
    return bool(wanted == found)
