"""What went wrong between us and a model's server, in our words."""

from __future__ import annotations

import contextlib
import email.utils
import time
from collections.abc import Mapping
from typing import Any, cast

import aiohttp
import httpx2
import openai
import orjson

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef


def broken(error: BaseException) -> str | None:
    """Why a connection failed, or None if it was only slow.

    The SDK's transport calls a refused or reset connection a timeout, too; aiohttp's own
    error, further down the chain of causes, knows better.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ServerTimeoutError):
            return None
        if isinstance(cause, aiohttp.ClientConnectorError):
            return cause.strerror or "refused"
        if isinstance(cause, aiohttp.ClientResponseError):
            return "what it sends is no HTTP"
        if isinstance(cause, aiohttp.ClientError):
            return "it closed the connection"
        cause = cause.__cause__ or cause.__context__
    slow = isinstance(error, TimeoutError | openai.APITimeoutError | httpx2.TimeoutException)
    return None if slow else type(error.__cause__ or error).__name__


def refused(response: httpx2.Response) -> openai.APIStatusError:
    """An answer with a status over 399 as the SDK's error."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict):
        body = body.get("error", body)
    return openai.APIStatusError(f"HTTP {response.status_code}", response=response, body=body)


def status_error(error: openai.APIStatusError, model: ModelRef) -> ModelError:
    """An HTTP status of the model's server, in our words."""
    status = error.status_code
    body = error.body if isinstance(error.body, dict) else {}
    code = str(body.get("code") or body.get("type") or "")
    detail = _short(str(body.get("message") or "")) or f"HTTP {status}"
    wait = _retry_after(error.response.headers)

    def made(ours: str, kind: ErrorKind, text: str) -> ModelError:
        return ModelError(text, code=ours, kind=kind, retry_after=wait, status=status)

    if status == 429 and "insufficient_quota" in (code, str(body.get("type"))):
        text = "the model's account is out of quota: add credit or raise its limit"
        return made("model_quota", ErrorKind.ACCOUNT, text)
    if status == 429:
        return made("model_rate_limited", ErrorKind.RATE, "the model's server asks to wait (429)")
    if status == 402:
        return made("model_quota", ErrorKind.ACCOUNT, "the model's account is out of credit (402)")
    if status == 401:
        text = f"the model's server refused the key of provider {model.provider} (401)"
        return made("model_unauthorized", ErrorKind.ACCOUNT, text)
    if status == 403:
        return made("model_forbidden", ErrorKind.MODEL, f"the key may not use model {model} (403)")
    if status == 404:
        text = f"model {model} does not exist or was shut down (404); choose another one"
        return made("model_not_found", ErrorKind.MODEL, text)
    if status in (408, 409, 425) or status >= 500:
        return made("model_unavailable", ErrorKind.PASSING, f"the model's server failed ({status})")
    return made("model_refused", ErrorKind.REQUEST, f"the model refused the request: {detail}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after")
    for said, unit in ((headers.get("retry-after-ms"), 1000), (value, 1)):
        if said:
            with contextlib.suppress(ValueError):
                return max(0.0, float(said) / unit)
    if value:
        with contextlib.suppress(TypeError, ValueError):
            moment = cast(Any, email.utils.parsedate_to_datetime(value))
            return float(max(0.0, moment.timestamp() - time.time()))
    return None
