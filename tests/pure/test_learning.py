# ruff: noqa: E501
"""Refusals that teach how a server wants to be asked. Tables."""

from typing import Any

import pytest

from service.llm.learning import lesson
from service.llm.providers import Api, Dialect, Schemas

USER = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "Be short."}
CALL = {"role": "assistant", "tool_calls": [{"id": "call_1"}]}
FORMAT = {"type": "json_schema"}


@pytest.mark.parametrize(
    ("body", "said", "learned"),
    [
        (
            {"max_tokens": 5},
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            {"max_tokens": "max_completion_tokens"},
        ),
        ({"max_tokens": 5}, "max_tokens is too large: 5", {}),
        ({"response_format": FORMAT}, "This response_format type is unavailable now", {"schemas": Schemas.JSON}),
        ({"response_format": FORMAT}, "json_schema is not supported", {"schemas": Schemas.JSON}),
        ({"messages": [SYSTEM, USER]}, "System role not supported", {"system": False}),
        (
            {"messages": [SYSTEM, USER]},
            "Conversation roles must alternate user/assistant/user/assistant/...",
            {"system": False},
        ),
        ({"messages": [SYSTEM, USER]}, "Developer instruction is not enabled for models/gemma-3", {"system": False}),
        ({"messages": [USER]}, "System role not supported", {}),
        ({"stream": False}, "This model only support stream mode, please enable the stream parameter", {"stream_only": True}),
        ({"stream": True, "stream_options": {}}, "Unrecognized request argument: stream_options", {"stream_usage": False}),
        ({"messages": [USER, CALL]}, "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.", {"tool_id": 9}),
        (
            {"tools": [1]},
            "Function tools with reasoning_effort are not supported for gpt-5.6 in "
            "/v1/chat/completions. Please use /v1/responses instead.",
            {"api": Api.RESPONSES},
        ),
        (
            {"temperature": 0.5},
            "Unsupported value: 'temperature' does not support 0.5 with this model.",
            {"without": frozenset({"temperature"})},
        ),
        ({"temperature": 3}, "temperature must be between 0 and 2", {}),
        ({"temperature": 1}, "something else is not supported", {}),
        ({"messages": [USER]}, "bad request", {}),
    ],
)  # fmt: skip
def test_what_a_refusal_teaches(body: dict[str, Any], said: str, learned: dict[str, Any]) -> None:
    asked = {"model": "m", "messages": [USER], **body}
    assert lesson(Dialect(), asked, said) == (Dialect(**learned) if learned else None)


def test_weaker_and_weaker_until_the_instructions_alone() -> None:
    asked = {"messages": [USER], "response_format": {"type": "json_object"}}
    json = Dialect(schemas=Schemas.JSON)
    made = lesson(json, asked, "'response_format.type' must be 'json_schema' or 'text'")
    assert made == Dialect(schemas=Schemas.TEXT)
    assert lesson(made, {"messages": [USER]}, "response_format") is None
