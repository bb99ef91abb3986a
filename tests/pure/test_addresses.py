"""Addresses of model servers. Tables."""

import pytest

from service.llm.addresses import doubt, join, shown
from service.llm.model_lists import listed, names


@pytest.mark.parametrize(
    ("base_url", "called"),
    [
        ("http://h:1/v1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/chat/completions", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/models", "http://h:1/v1/chat/completions"),
        ("http://h:1", "http://h:1/chat/completions"),
        (
            "https://x.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_what_is_called(base_url: str, called: str) -> None:
    assert join(base_url, "chat/completions") == called


@pytest.mark.parametrize(
    ("base_url", "part"),
    [
        ("http://127.0.0.1:11434", "/v1"),
        ("http://127.0.0.1:11434/v1", None),
        ("https://api.deepseek.com", None),
        ("https://open.bigmodel.cn/api/paas/v4", None),
        ("https://x.openai.azure.com", "/openai/v1"),
        ("https://x.openai.azure.com/openai/v1", None),
        ("https://x.openai.azure.com/openai/deployments/d", "api-version"),
        ("https://generativelanguage.googleapis.com/v1beta", "/openai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", None),
    ],
)
def test_what_is_probably_wrong(base_url: str, part: str | None) -> None:
    said = doubt(base_url)
    assert said is None if part is None else said is not None and part in said


def test_no_key_in_an_address_is_shown() -> None:
    assert shown("http://user:secret@h:1/v1?key=secret") == "http://h:1/v1"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"object": "list", "data": [{"id": "a"}, {"id": "b"}]}', ["a", "b"]),
        (b'[{"id": "a", "object": "model"}]', ["a"]),
        (b'{"models": [{"name": "a"}]}', ["a"]),
        (b'{"object": "list", "data": [{"id": "models/a"}]}', ["a"]),
        (b'{"data": []}', []),
        (b'{"error": "Unexpected endpoint or method. (GET /models)"}', None),
        (b"<html>Open WebUI</html>", None),
        (b"5", None),
    ],
)
def test_lists_of_models(content: bytes, found: list[str] | None) -> None:
    assert names(content, "models/") == found


@pytest.mark.parametrize(
    ("model", "known", "there"),
    [
        ("a", ["a"], True),
        ("llama3.2", ["llama3.2:latest"], True),
        ("openai/gpt", ["openai/*"], True),
        ("anything", ["*"], True),
        ("a", ["b", "openai/*"], False),
    ],
)
def test_whether_a_model_is_listed(model: str, known: list[str], there: bool) -> None:
    assert listed(model, known) is there
