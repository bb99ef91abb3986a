"""The table of known servers."""

from pathlib import Path
from typing import Any, get_args

import pytest

from service.flows import Provider
from service.flows.tables import ServerKind
from service.llm.providers import (
    KINDS,
    SERVERS,
    Api,
    Dialect,
    Schemas,
    dialect_of,
    find,
    needs_responses,
)

DOCS = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("base_url", "kind"),
    [
        *[(server.address, server.kind) for server in SERVERS if server.hosts or server.local],
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen"),
        ("https://ark.cn-beijing.volces.com/api/v3", "doubao"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://192.168.1.5:8000/v1", "generic"),
        ("https://api.openai.com.evil.example/v1", "generic"),
        (None, "generic"),
    ],
)
def test_a_server_is_known_by_its_address(base_url: str | None, kind: str) -> None:
    assert find(None, base_url).kind == kind


def test_what_flows_toml_says_goes_first() -> None:
    assert find("vllm", "https://api.openai.com/v1").kind == "vllm"
    keys: dict[str, Any] = {"max_tokens_param": "max_completion_tokens", "api": "responses"}
    made = dialect_of(KINDS["vllm"], Provider(**keys))
    assert (made.max_tokens, made.api) == ("max_completion_tokens", Api.RESPONSES)


@pytest.mark.parametrize(
    ("kind", "differs"),
    [
        ("openai", {"max_tokens": "max_completion_tokens"}),
        ("azure", {"max_tokens": "max_completion_tokens"}),
        ("groq", {"max_tokens": "max_completion_tokens", "schemas": Schemas.JSON}),
        ("deepseek", {"schemas": Schemas.JSON}),
        ("minimax", {"schemas": Schemas.TEXT}),
        ("mistral", {"tool_id": 9, "stream_usage": False}),
        ("ollama", {}),
        ("generic", {}),
    ],
)
def test_how_it_is_spoken_to(kind: str, differs: dict[str, Any]) -> None:
    assert KINDS[kind].dialect == Dialect(**differs)


@pytest.mark.parametrize(
    ("kind", "model", "options", "needs"),
    [
        ("openai", "gpt-5.6", {"tools": [1]}, True),
        ("openai", "gpt-5.6-mini", {"tools": [1], "reasoning_effort": "low"}, True),
        ("openai", "gpt-5.6", {"tools": [1], "reasoning_effort": "none"}, False),
        ("openai", "gpt-5.6", {}, False),
        ("openai", "gpt-5.4-mini", {"tools": [1]}, False),
        ("generic", "gpt-5.6", {"tools": [1]}, False),
    ],
)
def test_which_questions_need_responses(
    kind: str, model: str, options: dict[str, Any], needs: bool
) -> None:
    assert needs_responses(KINDS[kind], model, options) is needs


def test_flows_toml_and_the_docs_know_each_kind() -> None:
    assert set(get_args(ServerKind)) == set(KINDS)
    for server in SERVERS:
        assert f"| `{server.kind}` | `{server.address}` |" in DOCS
        assert f"### {server.title}\n" in DOCS
