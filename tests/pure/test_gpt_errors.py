"""What model servers say when they do not answer, in our words. Tables."""

import email.utils
import time
from typing import Any

import orjson
import pytest

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm.failures import failure, seconds

MODEL = ModelRef("openai", "gpt-5.4-mini")
ACCOUNT, RATE, PASSING = ErrorKind.ACCOUNT, ErrorKind.RATE, ErrorKind.PASSING
QUOTA, KEY, LIMITED = "model_quota", "model_unauthorized", "model_rate_limited"
LONG, NO_MODEL, FILTERED = "model_too_long", "model_not_found", "model_filtered"
REFUSED, DOWN, SLIP = "model_refused", "model_unavailable", "model_tool_call"
ANOTHER, REQUEST, ANSWER = ErrorKind.MODEL, ErrorKind.REQUEST, ErrorKind.ANSWER


def made(status: int, body: Any = None, **headers: str) -> ModelError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return failure(status, content, named, MODEL)


def error(message: str = "", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    ("status", "body", "code", "kind"),
    [
        # By the status alone
        (429, error(code="rate_limit_exceeded"), LIMITED, RATE),
        (429, None, LIMITED, RATE),
        (429, b"slow down", LIMITED, RATE),
        (402, None, QUOTA, ACCOUNT),
        (401, error(code="invalid_api_key"), KEY, ACCOUNT),
        (403, None, "model_forbidden", ANOTHER),
        (404, error(code=NO_MODEL), NO_MODEL, ANOTHER),
        (400, error("bad"), REFUSED, REQUEST),
        (413, None, REFUSED, REQUEST),
        (422, None, REFUSED, REQUEST),
        (408, None, DOWN, PASSING),
        (409, None, DOWN, PASSING),
        (425, None, DOWN, PASSING),
        (500, None, DOWN, PASSING),
        (502, b"<html>", DOWN, PASSING),
        (529, error("5"), DOWN, PASSING),
        # No money
        (429, error("no", code="insufficient_quota"), QUOTA, ACCOUNT),
        (429, error(type="insufficient_quota"), QUOTA, ACCOUNT),
        (400, error("Access denied", code="Arrearage"), QUOTA, ACCOUNT),  # DashScope
        (429, error("x", type="exceeded_current_quota_error"), QUOTA, ACCOUNT),  # Kimi
        (429, error("余额不足", code="1113"), QUOTA, ACCOUNT),  # Zhipu
        (400, error("Your credit balance is too low"), QUOTA, ACCOUNT),  # Anthropic
        (403, error("Your team doesn't have any credits yet"), QUOTA, ACCOUNT),  # xAI
        (422, error("Budget has been exceeded!", type="budget_exceeded"), QUOTA, ACCOUNT),
        (429, error("You exceeded your current quota, please check"), QUOTA, ACCOUNT),
        # Gemini's limit for each minute calls itself a quota, and says when it ends
        (
            429,
            [error("You exceeded your current quota. Please retry in 27.1s.", code=429)],
            LIMITED,
            RATE,
        ),
        # No key
        (400, [error("API key not valid. Please pass a valid API key.")], KEY, ACCOUNT),
        (400, error("No connected db.", type="no_db_connection"), KEY, ACCOUNT),
        (403, error("Invalid API key"), KEY, ACCOUNT),
        # Too long
        (400, error(code="context_length_exceeded"), LONG, ANOTHER),
        (400, error("the request exceeds the available context size (2048 tokens)"), LONG, ANOTHER),
        (400, {"error": "the first 5000 tokens when context overflows"}, LONG, ANOTHER),
        (400, error("litellm.ContextWindowExceededError: This model's maximum"), LONG, ANOTHER),
        (413, error("Request too large for model `x` on tokens per minute"), LONG, ANOTHER),
        (400, error("Range of input length should be [1, 30720]"), LONG, ANOTHER),
        # No such model
        (400, error("/chat/completions: Invalid model name passed in model=x."), NO_MODEL, ANOTHER),
        (400, {"detail": "Model not found"}, NO_MODEL, ANOTHER),
        (404, error('model "llama9" not found, try pulling it first'), NO_MODEL, ANOTHER),
        # A filter
        (400, error("x", code="content_filter"), FILTERED, REQUEST),
        (400, error("x", code="data_inspection_failed"), FILTERED, REQUEST),
        # A call that the model wrote wrongly
        (400, error("Failed to call a function.", code="tool_use_failed"), SLIP, ANSWER),
        # Inside of a 200
        (200, error("Provider returned error", code=429), LIMITED, RATE),
        (200, error("no credits", code=402), QUOTA, ACCOUNT),
        (200, error("bad", code=400), REFUSED, REQUEST),
        (200, error("Upstream died", code=502), DOWN, PASSING),
        (200, error("what?"), DOWN, PASSING),
        (200, {"base_resp": {"status_code": 1008, "status_msg": "x"}}, QUOTA, ACCOUNT),
    ],
)  # fmt: skip
def test_what_it_means(status: int, body: Any, code: str, kind: ErrorKind) -> None:
    found = made(status, body)
    assert (found.code, found.kind) == (code, kind)
    assert found.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (error("a sentence"), "a sentence"),
        ({"error": "a sentence"}, "a sentence"),
        ({"detail": "a sentence"}, "a sentence"),
        ({"detail": [{"loc": ["body", "n"], "msg": "a sentence"}]}, "body.n: a sentence"),
        ([error("a sentence")], "a sentence"),
        ({"message": "a sentence"}, "a sentence"),
        ({"object": "error", "message": {"detail": [{"msg": "a sentence"}]}}, "a sentence"),
        ({"base_resp": {"status_code": 1, "status_msg": "a sentence"}}, "a sentence"),
        (b"a sentence", "a sentence"),
        (b"<html><head><title>413 Too Large</title></head></html>", "a web page 413 Too Large"),
    ],
)
def test_the_servers_own_words_wherever_they_stand(body: Any, words: str) -> None:
    assert made(400, body).message.endswith(": " + words)


def test_a_model_that_was_shut_down_is_named() -> None:
    assert "gpt-5.4-mini does not exist or was shut down" in made(404).message


def test_what_the_server_said_is_one_short_line_of_letters() -> None:
    said = made(400, error("a\n\nb \x1b[31m\x00" + "x" * 1000)).message
    assert said.isprintable()
    assert "a b " in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "x"}, None),
        ({"retry-after-ms": "x", "retry-after": "7"}, 7),
        ({"llm_provider-retry-after": "7"}, 7),
    ],
)
def test_a_wait_in_the_headers(headers: dict[str, str], wait: float | None) -> None:
    found = failure(503, b"", headers, MODEL)
    assert found.retry_after == wait


@pytest.mark.parametrize(("ahead", "wait"), [(60, 60), (-60, 0)])
def test_a_wait_may_be_a_date(ahead: int, wait: float) -> None:
    moment = email.utils.formatdate(time.time() + ahead, usegmt=True)
    found = made(429, retry_after=moment).retry_after
    assert found is not None
    assert abs(found - wait) < 5


@pytest.mark.parametrize(
    ("body", "wait"),
    [
        (error("Rate limit reached. Please try again in 7.66s."), 7.66),
        (error("Please try again in 6m0s."), 360),
        (error("Please try again in 120ms."), 0.12),
        (error("Please retry after 10 seconds."), 10),
        ([error("Quota", details=[{"retryDelay": "27s"}])], 27),
        ({"retry_after": 3, "error": "slow"}, 3),
        (error("Limit 3 requests per minute."), None),
    ],
)
def test_a_wait_in_the_body(body: Any, wait: float | None) -> None:
    assert made(429, body).retry_after == wait


@pytest.mark.parametrize(
    ("text", "length"), [("7", 7), ("1.5s", 1.5), ("6m0s", 360), ("120ms", 0.12), ("x", None)]
)
def test_durations(text: str, length: float | None) -> None:
    assert seconds(text) == length
