"""The tables of flows.toml. Each key is declared here and nowhere else: its type, its default
and what an editor says of it. `load`, the checks, the schema and the docs test read it.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from service.flows.kinds import (
    REQUIRED,
    Charset,
    Condition,
    Count,
    Duration,
    Factors,
    Flag,
    JsonSchema,
    JsonTable,
    Model,
    Number,
    OneOrMore,
    Pattern,
    Percent,
    Qos,
    Rate,
    RequestTopic,
    ResponseFilter,
    Schedule,
    Size,
    Summing,
    Text,
    Topic,
    ValuePath,
    WatchedTopic,
    Whole,
    WholeSeconds,
    Words,
    Zone,
    key,
)
from service.flows.model_names import DEFAULT_MODEL, DEFAULT_PROVIDER, ModelRef
from service.flows.tool import Confirm, Tool
from service.mqtt.templates import Template

ServerKind = Literal[
    "openai",
    "azure",
    "deepseek",
    "qwen",
    "kimi",
    "zhipu",
    "doubao",
    "minimax",
    "ollama",
    "vllm",
    "lmstudio",
    "llamacpp",
    "gemini",
    "mistral",
    "groq",
    "openrouter",
    "together",
    "xai",
    "litellm",
    "generic",
]  # what is known of each is in llm.providers
FLOW_NAME = "[A-Za-z][A-Za-z0-9_-]{0,63}"
_FORBID = ConfigDict(extra="forbid")
# A key may be a word that Python keeps for itself: it is written with a _ behind it here.
_KEYWORDS = ConfigDict(extra="forbid", alias_generator=lambda name: name.removesuffix("_"))


@dataclass(frozen=True, slots=True)
class History:
    """Memory of a conversation."""

    __pydantic_config__ = _FORBID

    messages: Whole = key(
        10, "How many messages are remembered; an exchange is two.", ge=2, le=1000
    )
    tokens: Count | None = key(
        None, "Remember no more than about this many tokens; the oldest go first."
    )
    ttl: Duration | None = key(None, 'Forget after this much silence: "24h".')
    summarize: Summing | None = key(
        None,
        "What falls out is summed up and stays, by the flow's model (true) or by this one, after "
        "the answer.",
    )
    reset: Annotated[tuple[Text, ...], OneOrMore()] = key(
        (), "Messages that say nothing but this forget the conversation."
    )

    def resets(self, text: str) -> bool:
        """Whether `text` is nothing but a reset word, as people or speech recognition write it."""
        return bool(self.reset) and _folded(text) in _all_folded(self.reset)


_MARKS = " \t\r\n\0.,!?;:…。，、！？；：\"'“”„‘’«»「」()（）"
_WITHIN = re.compile(r"[\s,，、]+")


@functools.cache
def _all_folded(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_folded, words))


def _folded(text: str) -> str:
    """Without the case and the punctuation that speech recognition adds."""
    bare = text.strip(_MARKS)
    return _WITHIN.sub(" ", bare).casefold() if bare else text.strip()


@dataclass(frozen=True, slots=True)
class Recent:
    """What was published lately on a topic: kept without asking a model, for its prompts."""

    __pydantic_config__ = _KEYWORDS

    topic: WatchedTopic = key(
        REQUIRED, "Whose messages are kept; ${name} is a level that request captures too."
    )
    messages: Whole = key(100, "How many messages are kept.", ge=1, le=10_000)
    for_: Duration = key(3600.0, 'How long they are kept: "1h".')
    size: Size = key(256_000, 'How much of them is kept: "256 KB".')
    fields: Annotated[tuple[ValuePath, ...], OneOrMore()] = key(
        (), "The values of JSON payloads that are told; without it all that are no lists."
    )
    tokens: Whole = key(
        1000, "About how long ${recent} may be; longer ones are thinned out.", ge=50, le=100_000
    )


@dataclass(frozen=True, slots=True)
class Collect:
    """Many messages become one request: those of some time, but no more than so many."""

    __pydantic_config__ = _FORBID

    every: Duration = key(
        REQUIRED, 'How long after its first message a batch is asked about: "30s".'
    )
    messages: Whole = key(
        100, "With so many it is asked about at once; more go into the next.", ge=2, le=1000
    )
    size: Size = key(64_000, 'With so many bytes, likewise: "64 KB".')
    by: Words | None = key(
        None, "What is collected together, apart from the rest. Without it: as conversation."
    )
    fields: Annotated[tuple[ValuePath, ...], OneOrMore()] = key(
        (), "The values of JSON payloads that are told; without it all that are no lists."
    )
    tokens: Whole = key(
        2000, "About how long ${collected} may be; longer ones are thinned out.", ge=50, le=100_000
    )


@dataclass(frozen=True, slots=True)
class Messages:
    """What people hear in place of a reply. Without a key: the built-in sentence."""

    __pydantic_config__ = _FORBID

    failed: Text | None = key(None, "No answer, for any reason that has no key of its own here.")
    limit: Text | None = key(None, "Over limit or client_limit.")
    tokens: Text | None = key(None, "Over daily_tokens.")
    late: Text | None = key(None, "No answer came before the deadline.")
    refused: Text | None = key(None, "The model or its filter would not answer.")
    not_text: Text | None = key(None, "The payload is no text in a known charset.")
    not_json: Text | None = key(None, 'The payload is not JSON, with input = "json".')
    not_image: Text | None = key(None, 'The payload is no picture, with input = "image".')
    forgotten: Text | None = key(None, "The answer to a reset word.")


@dataclass(frozen=True, slots=True)
class FlowKeys:
    """One flow: which topics, which prompt and model, where the reply goes."""

    __pydantic_config__ = _FORBID

    request: Annotated[tuple[RequestTopic, ...], OneOrMore()] = key(
        (), "Topics to answer; ${name} captures one level. One or several."
    )
    where: Condition | None = key(None, "Condition in EMQX's rule SQL; it is tested in the broker.")
    every: Schedule | None = key(
        None, 'Ask by the clock, without a message: a cron expression such as "0 7 * * *".'
    )
    timezone: Zone = key("UTC", 'Whose clock every goes by: "Europe/Berlin".')
    missed: Literal["run", "skip"] = key(
        "run", "What becomes of a time at which no process was there: made up for once, or not."
    )
    reply: Topic | None = key(None, "Where the reply is published.")
    error: Topic | None = key(
        None, "Where failures are told. Without it: on the reply topic.", default_from="reply"
    )
    stream: Topic | None = key(
        None, "Where pieces of the reply are published while the model writes."
    )
    status: Topic | None = key(None, "Where progress is told: working, then completed or failed.")
    conversation: Words | None = key(
        None, "What shares memory, order and cooldown. Without it: the captured levels."
    )
    input: Literal["text", "json", "image"] = key("text", "What the payload is.")
    max_input: Whole = key(
        200_000,
        "Longest message that is asked, in bytes, and the prompt that is made of it; a picture may "
        "have fifty times as many.",
        ge=16,
        le=10**9,
    )
    charset: Charset | None = key(
        None, 'Of payloads that are not UTF-8: "gbk"; a content type that names one goes before it.'
    )
    prompt: Words | None = key(None, "What the model is asked. Without it: the payload as it came.")
    strip: Pattern | None = key(None, "Regular expression; what it finds is cut from the message.")
    require: Pattern | None = key(None, "Regular expression; a message without it is ignored.")
    dedupe: Words = key(
        Template.parse("${id}"), "Two messages with the same value are one request."
    )
    system: Words | None = key(None, "Instructions to the model.")
    model: Model = key(
        ModelRef(DEFAULT_PROVIDER, DEFAULT_MODEL), "Name of the model, or PROVIDER/name."
    )
    fallback: Annotated[tuple[Model, ...], OneOrMore()] = key(
        (), "Models to ask, in this order, when the first one can't answer."
    )
    temperature: Number | None = key(
        None, "Sent only if set: reasoning models refuse it.", ge=0, le=2
    )
    max_tokens: Count | None = key(None, "Longest answer, in tokens.")
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = key(
        None, "How long a reasoning model may think; sent only if set."
    )
    verbosity: Literal["low", "medium", "high"] | None = key(
        None, "How much the model says; sent only if set."
    )
    timeout: Duration = key(60.0, 'Longest wait for one model call: "60s".')
    params: JsonTable = key(dict, "Anything else of the Chat Completions API, sent as it stands.")
    history: History | None = key(None, "Memory; off unless set.")
    recent: Recent | None = key(
        None, "What was published lately on another topic, as ${recent} in prompt and system."
    )
    collect: Collect | None = key(None, "Many messages become one request, told as ${collected}.")
    format: Literal["text", "json"] = key("text", "The reply as bare text, or in a JSON envelope.")
    speak: Flag = key(
        False, "The reply is read out: plain sentences, no Markdown, emoji, links or tables."
    )
    max_length: Whole | None = key(
        None, "Longest reply in bytes of UTF-8; cut at the end of a sentence.", ge=16, le=10**9
    )
    chunk: Whole | None = key(
        None,
        'Longest payload in bytes: longer replies come in numbered pieces, "1/3 …".',
        ge=32,
        le=10**9,
    )
    schema: JsonSchema | None = key(None, "JSON Schema; the model then answers with such JSON.")
    qos: Qos = key(1, "QoS of what is published.")
    retain: Flag = key(False, "Publish the reply as a retained message.")
    expiry: WholeSeconds | None = key(
        None, "MQTT 5: the broker drops an undelivered reply after this long."
    )
    hold: Duration | None = key(
        None, "A reply that found no subscriber is published again for this long."
    )
    deadline: Duration = key(900.0, "After this long a request is not asked any more.")
    cooldown: Duration | None = key(None, "After a reply, ignore the conversation for this long.")
    on_change: Words | None = key(
        None, "Ask only when this is another value than the conversation's last one."
    )
    deadband: Number | None = key(
        None, "on_change: numbers that differ by no more are the same.", gt=0, le=10**15
    )
    within: Percent | None = key(
        None, 'on_change: numbers that differ by no more than this share are the same: "5%".'
    )
    limit: Rate | None = key(None, 'Requests per conversation: "10/min".')
    client_limit: Rate | None = key(None, 'Requests per client id: "100/h".')
    daily_tokens: Count | None = key(None, "Tokens this flow may use in a day (UTC).")
    daily_usd: Number | None = key(
        None, "US dollars this flow may use in a day (UTC), where prices are known.", gt=0, le=10**6
    )
    on_error: Words | None = key(None, "Published as the reply when no model can answer.")
    language: Literal["auto", "en", "de", "zh"] = key(
        "auto", "Of the built-in sentences; auto: the language of the question, or of the prompt."
    )
    messages: Messages | None = key(None, "Sentences of your own in place of the built-in ones.")
    tools: tuple[Tool, ...] = key((), "What the model may do.")
    tools_from: Annotated[tuple[Text, ...], OneOrMore()] = key(
        (), "MCP servers, by their names in [mcp.NAME], whose tools the model may call too."
    )
    allow_response_topics: Annotated[tuple[ResponseFilter, ...], OneOrMore()] = key(
        (), "Filters that an MQTT 5 Response-Topic must match to count."
    )
    description: Text | None = key(
        None, "What it does, for programs that ask it: emqx-gpt mcp tells it to their models."
    )


@dataclass(frozen=True, slots=True)
class ProviderKeys:
    """An OpenAI-compatible server beside the default one."""

    __pydantic_config__ = _FORBID

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+")] | None = key(
        None, "Address of its API, up to and including /v1."
    )
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = key(
        None, "Name of the environment variable with its key; none: no key."
    )
    kind: ServerKind | None = key(
        None, 'What it is, where its address does not tell: "ollama", "vllm", "litellm" …'
    )
    api: Literal["chat", "responses"] | None = key(
        None, "Which of OpenAI's APIs it is asked by. Without it: chat, unless a model needs more."
    )
    max_tokens_param: Literal["max_tokens", "max_completion_tokens"] | None = key(
        None, "What this server calls max_tokens. Without it: as is known of its kind."
    )


MCP_NAME = "[A-Za-z][A-Za-z0-9-]*(?:_[A-Za-z0-9-]+)*"
"""No double underscore: it stands between a server's name and its tool's."""
LONGEST_MCP_NAME = 32
UNION = ("{}", "false")
"""How pydantic tells a table from false, in the place of a fault; no key is called so."""


def _which(value: Any) -> str:
    return UNION[0] if isinstance(value, dict | Confirm) else UNION[1]


AskedFirst = Annotated[
    Annotated[Confirm, Tag(UNION[0])] | Annotated[Literal[False], Tag(UNION[1])],
    Discriminator(_which),
]


@dataclass(frozen=True, slots=True)
class McpKeys:
    """An MCP server, whose tools flows may offer to their models."""

    __pydantic_config__ = _FORBID

    url: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")] = key(
        REQUIRED, "Its address (streamable HTTP), such as http://127.0.0.1:9000/mcp."
    )
    token_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = key(
        None, "Name of the environment variable with its bearer token; none: no token."
    )
    allow: Annotated[tuple[Text, ...], OneOrMore()] = key(
        ("*",), 'Which of its tools may be offered, by name; * is any characters: "get_*".'
    )
    timeout: Duration = key(30.0, "Longest wait for one call.")
    confirm: AskedFirst | None = key(
        None,
        "Who is asked before a call of a tool that may destroy something; false: nobody. Without "
        "it such tools are not offered.",
    )
    at_most_once: Flag | None = key(
        None,
        "Rather lose a call in a crash than make it twice. Without it: of tools that are neither "
        "read-only nor idempotent by the server's own word.",
    )


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    __pydantic_config__ = _FORBID

    input: Number = key(REQUIRED, "Tokens sent.", ge=0)
    output: Number = key(REQUIRED, "Tokens received.", ge=0)
    cached: Number | None = key(
        None, "Tokens sent that its cache knew. Without it: as input.", ge=0
    )
    cache_write: Number | None = key(
        None, "Tokens sent that its cache took in. Without it: as input.", ge=0
    )
    tiers: Factors = key(
        dict, "By what a service tier multiplies these prices: { flex = 0.5, priority = 2 }."
    )


@dataclass(frozen=True, slots=True)
class File:
    """flows.toml of emqx-gpt: which messages a model answers, and how."""

    __pydantic_config__ = _FORBID

    defaults: FlowKeys | None = key(
        None, "Keys that hold for every flow which does not set them itself."
    )
    providers: dict[str, ProviderKeys] = key(dict, "OpenAI-compatible servers by name.")
    mcp: dict[str, McpKeys] = key(dict, "MCP servers by name; a flow takes tools_from them.")
    prices: dict[str, Price] = key(dict, "Prices by model, for the cost figures.")
    price_list: Literal["genai-prices"] | None = key(
        None, "Where prices come from that are not in [prices]; needs pip install emqx-gpt[prices]."
    )
    flows: dict[str, FlowKeys] = key(dict, "The flows by name.")
