"""The servers that are known to speak OpenAI's API, and in which each differs. Data, no logic.

A provider of flows.toml finds its row by `kind`, else by the host name of its address, else it
is `generic`. What a row leaves out is as in `Dialect`. A server that refuses what its row says is
asked once more in the way that it wants, and that is remembered (`learning`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from service.flows import Provider


class Schemas(StrEnum):
    """How answers can be bound to a JSON Schema."""

    STRICT = "json_schema"  # the server sees to it
    JSON = "json_object"  # it is JSON; the schema stands in the instructions
    TEXT = "text"  # all stands in the instructions


class Api(StrEnum):
    """Which of OpenAI's two APIs is spoken."""

    CHAT = "chat"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a model is spoken to."""

    max_tokens: str = "max_tokens"
    system: bool = True  # False: the instructions stand in the first user message
    schemas: Schemas = Schemas.STRICT
    tool_id: int | None = None  # the exact length of a tool call's id; None: any
    stream_only: bool = False
    stream_usage: bool = True  # it knows stream_options
    api: Api = Api.CHAT
    most: int | None = None  # tokens of an answer, where a flow sets no max_tokens
    without: frozenset[str] = field(default_factory=frozenset)  # options it refuses


@dataclass(frozen=True, slots=True)
class ServerKind:
    """A row: a kind of server. `hosts` are ends of host names, `local` its usual port on this
    machine; `address` is what a base_url looks like, `key` who gives one ("" if none is needed).
    """

    kind: str
    title: str
    address: str
    hosts: tuple[str, ...] = ()
    local: int | None = None
    key: str = ""
    dialect: Dialect = Dialect()
    key_header: str = "authorization"
    responses_for: str = ""  # models (regular expression) whose function tools need Responses
    model_prefix: str = ""  # in its list of models, before each name


_JSON = Dialect(schemas=Schemas.JSON)
_LONG = "max_completion_tokens"

SERVERS = (
    ServerKind(
        "openai",
        "OpenAI",
        "https://api.openai.com/v1",
        hosts=("api.openai.com",),
        key="OPENAI_API_KEY",
        dialect=Dialect(max_tokens=_LONG),
        responses_for=r"gpt-5\.[6-9]|gpt-[6-9]",
    ),
    ServerKind(
        "azure",
        "Azure OpenAI",
        "https://NAME.openai.azure.com/openai/v1",
        hosts=("openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"),
        key="AZURE_OPENAI_API_KEY",
        dialect=Dialect(max_tokens=_LONG),
        key_header="api-key",
        responses_for=r"gpt-5\.[6-9]|gpt-[6-9]",
    ),
    ServerKind(
        "deepseek",
        "DeepSeek",
        "https://api.deepseek.com/v1",
        hosts=("api.deepseek.com",),
        key="DEEPSEEK_API_KEY",
        dialect=_JSON,
    ),
    ServerKind(
        "qwen",
        "Qwen (DashScope, Model Studio)",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        hosts=("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "maas.aliyuncs.com"),
        key="DASHSCOPE_API_KEY",
        dialect=_JSON,
    ),
    ServerKind(
        "kimi",
        "Kimi (Moonshot)",
        "https://api.moonshot.ai/v1",
        hosts=("api.moonshot.ai", "api.moonshot.cn"),
        key="MOONSHOT_API_KEY",
        dialect=_JSON,
    ),
    ServerKind(
        "zhipu",
        "GLM (Zhipu, Z.ai)",
        "https://open.bigmodel.cn/api/paas/v4",
        hosts=("bigmodel.cn", "api.z.ai"),
        key="ZHIPU_API_KEY",
        dialect=_JSON,
    ),
    ServerKind(
        "doubao",
        "Doubao (Volcengine Ark)",
        "https://ark.cn-beijing.volces.com/api/v3",
        hosts=("volces.com", "bytepluses.com"),
        key="ARK_API_KEY",
    ),
    ServerKind(
        "minimax",
        "MiniMax",
        "https://api.minimax.io/v1",
        hosts=("api.minimax.io", "api.minimaxi.com", "api.minimax.chat"),
        key="MINIMAX_API_KEY",
        dialect=Dialect(schemas=Schemas.TEXT),
    ),
    ServerKind("ollama", "Ollama", "http://127.0.0.1:11434/v1", local=11434),
    ServerKind("vllm", "vLLM", "http://127.0.0.1:8000/v1"),
    ServerKind("lmstudio", "LM Studio", "http://127.0.0.1:1234/v1", local=1234),
    ServerKind("llamacpp", "llama.cpp", "http://127.0.0.1:8080/v1", local=8080),
    ServerKind(
        "gemini",
        "Gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        hosts=("generativelanguage.googleapis.com",),
        key="GEMINI_API_KEY",
        model_prefix="models/",
    ),
    ServerKind(
        "mistral",
        "Mistral",
        "https://api.mistral.ai/v1",
        hosts=("api.mistral.ai",),
        key="MISTRAL_API_KEY",
        dialect=Dialect(tool_id=9, stream_usage=False),
    ),
    ServerKind(
        "groq",
        "Groq",
        "https://api.groq.com/openai/v1",
        hosts=("api.groq.com",),
        key="GROQ_API_KEY",
        dialect=Dialect(max_tokens=_LONG, schemas=Schemas.JSON),
    ),
    ServerKind(
        "openrouter",
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        hosts=("openrouter.ai",),
        key="OPENROUTER_API_KEY",
    ),
    ServerKind(
        "together",
        "Together",
        "https://api.together.xyz/v1",
        hosts=("api.together.xyz", "api.together.ai"),
        key="TOGETHER_API_KEY",
    ),
    ServerKind("xai", "xAI", "https://api.x.ai/v1", hosts=("api.x.ai",), key="XAI_API_KEY"),
    ServerKind(
        "litellm", "LiteLLM proxy", "http://127.0.0.1:4000/v1", local=4000, key="LITELLM_API_KEY"
    ),
)
GENERIC = ServerKind("generic", "any other", "http://HOST:PORT/v1")
KINDS = {server.kind: server for server in (*SERVERS, GENERIC)}
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "host.docker.internal")


def find(kind: str | None, base_url: str | None) -> ServerKind:
    """The row of a provider."""
    if kind is not None:
        return KINDS[kind]
    parts = urlsplit(base_url or "")
    host = (parts.hostname or "").lower()
    for server in SERVERS:
        if any(host == name or host.endswith("." + name) for name in server.hosts):
            return server
        if host in _LOOPBACK and parts.port is not None and parts.port == server.local:
            return server
    return GENERIC


def dialect_of(server: ServerKind, provider: Provider) -> Dialect:
    """How its models are spoken to at first: what flows.toml says goes before the table."""
    dialect = server.dialect
    if provider.max_tokens_param is not None:
        dialect = replace(dialect, max_tokens=provider.max_tokens_param)
    if provider.api is not None:
        dialect = replace(dialect, api=Api(provider.api))
    return dialect


def needs_responses(server: ServerKind, model: str, options: Mapping[str, Any]) -> bool:
    """Whether OpenAI refuses this on Chat Completions: function tools beside reasoning."""
    if not server.responses_for or not options.get("tools"):
        return False
    if options.get("reasoning_effort") == "none":
        return False
    return re.match(server.responses_for, model) is not None
