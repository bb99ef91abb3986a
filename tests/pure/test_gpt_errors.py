"""A model server's HTTP errors in our words, and whom they kind."""

import email.utils
import time
from typing import Any

import httpx2
import openai
import pytest

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm.refusals import status_error

MODEL = ModelRef("openai", "gpt-5.4-mini")


def made(status: int, body: Any = None, **headers: str) -> ModelError:
    request = httpx2.Request("POST", "http://model/v1/chat/completions")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, request=request, headers=named)
    return status_error(openai.APIStatusError("x", response=response, body=body), MODEL)


QUOTA = {"code": "insufficient_quota", "type": "insufficient_quota", "message": "no"}


@pytest.mark.parametrize(
    ("status", "body", "code", "kind"),
    [
        (429, {"code": "rate_limit_exceeded"}, "model_rate_limited", ErrorKind.RATE),
        (429, None, "model_rate_limited", ErrorKind.RATE),
        (429, "slow down", "model_rate_limited", ErrorKind.RATE),
        (429, QUOTA, "model_quota", ErrorKind.ACCOUNT),
        (429, {"type": "insufficient_quota"}, "model_quota", ErrorKind.ACCOUNT),
        (402, None, "model_quota", ErrorKind.ACCOUNT),
        (401, {"code": "invalid_api_key"}, "model_unauthorized", ErrorKind.ACCOUNT),
        (403, None, "model_forbidden", ErrorKind.MODEL),
        (404, {"code": "model_not_found"}, "model_not_found", ErrorKind.MODEL),
        (400, {"message": "bad"}, "model_refused", ErrorKind.REQUEST),
        (413, None, "model_refused", ErrorKind.REQUEST),
        (422, None, "model_refused", ErrorKind.REQUEST),
        (408, None, "model_unavailable", ErrorKind.PASSING),
        (409, None, "model_unavailable", ErrorKind.PASSING),
        (425, None, "model_unavailable", ErrorKind.PASSING),
        (500, None, "model_unavailable", ErrorKind.PASSING),
        (502, "<html>", "model_unavailable", ErrorKind.PASSING),
        (529, {"message": 5}, "model_unavailable", ErrorKind.PASSING),
    ],
)
def test_whom_it_blames(status: int, body: Any, code: str, kind: ErrorKind) -> None:
    found = made(status, body)
    assert (found.code, found.kind, found.status) == (code, kind, status)
    assert found.message


def test_a_model_that_was_shut_down_is_named() -> None:
    assert "gpt-5.4-mini does not exist or was shut down" in made(404).message


def test_what_the_server_said_is_one_short_line() -> None:
    said = made(400, {"message": "a\n\nb " + "x" * 1000}).message
    assert "\n" not in said
    assert "a b x" in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "0"}, 0),
        ({"retry_after": "-5"}, 0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ({"retry_after_ms": "x"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert made(503, **headers).retry_after == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(60, 60), (-60, 0)])
def test_retry_after_may_be_a_date(ahead: int, seconds: float) -> None:
    moment = email.utils.formatdate(time.time() + ahead, usegmt=True)
    found = made(429, retry_after=moment).retry_after
    assert found is not None
    assert abs(found - seconds) < 5


def test_a_retry_after_in_milliseconds_that_can_not_be_read_leaves_the_other() -> None:
    assert made(503, retry_after_ms="x", retry_after="7").retry_after == 7
