"""What a model's server says when it does not answer, in our words. Pure.

Every server has its own: the words stand in `error`, in `detail`, in a list, in plain text, the
reason in the status, a code, a type or only in the sentence. `MEANINGS` is the table; what a
server says is looked for there first, and its HTTP status decides what is left.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import httpx2
import openai

from service import safe_text
from service.bodies import parsed
from service.errors import ErrorKind, ModelError
from service.flows import ModelRef

LONGEST = 200  # characters of a server's words


@dataclass(frozen=True, slots=True)
class Meaning:
    """What words like these mean. `statuses` are those that may say so; none: all of them."""

    code: str
    kind: ErrorKind
    words: re.Pattern[str]
    statuses: tuple[int, ...] = ()


def _meaning(code: str, kind: ErrorKind, *words: str, statuses: tuple[int, ...] = ()) -> Meaning:
    return Meaning(code, kind, re.compile("|".join(words), re.IGNORECASE), statuses)


# Codes are matched as whole words of "code type status message". First match wins.
MEANINGS = (
    _meaning(
        "model_quota",
        ErrorKind.ACCOUNT,
        r"insufficient[ _-]?(quota|balance|credit|funds)",  # OpenAI, DeepSeek, OpenRouter
        r"exceeded[ _]your[ _]current[ _]quota|exceeded_current_quota",  # OpenAI, Moonshot
        r"budget[ _](has been )?exceeded|exceeded (your |the )?budget",  # LiteLLM
        r"arrearage|account is in good standing|overdue",  # DashScope, Volcengine
        r"credit balance is too low|(no|any|out of|run out of) credits",  # Anthropic, xAI
        r"余额不足|欠费|\b1113\b|\b1008\b",  # Zhipu, MiniMax
        r"billing[ _](hard_)?limit|payment[ _]required|credit_limit",
    ),
    _meaning(
        "model_unauthorized",
        ErrorKind.ACCOUNT,
        r"api[ _-]?key[ _-]?(is |was )?(not[ _]valid|invalid|expired|incorrect|missing|required)",
        r"(invalid|incorrect|wrong|expired|missing|no|illegal)[ _-]?api[ _-]?key",
        r"invalid[ _]authentication|authentication[ _]?(error|failed|fails)|unauthenticated",
        r"no_db_connection|token_not_found",  # LiteLLM: it can't know the key
        r"invalid (subscription key|token)|令牌",
        statuses=(200, 400, 401, 403, 422, 500),
    ),
    _meaning(
        "model_tool_call",
        ErrorKind.ANSWER,
        r"tool_use_failed|failed_generation|json_validate_failed",  # Groq: its model slipped
        statuses=(400,),
    ),
    _meaning(
        "model_too_long",
        ErrorKind.MODEL,
        r"context[ _-]?(length|window|size|overflow)|contextwindow|context_length_exceeded",
        r"exceeds? .{0,30}context|maximum context|context .{0,20}(exceed|overflow)",
        r"(prompt|input|messages?|request)( is| are)? too (long|large)|too many (input )?tokens",
        r"reduce the length|range of input length|exceeds? .{0,40}(max|limit).{0,20}tokens",
        r"input token count|\b1261\b|tokens? .{0,20}exceeds? the max",
        statuses=(200, 400, 413, 422, 500),
    ),
    _meaning(
        "model_filtered",
        ErrorKind.REQUEST,
        r"content[ _]?(filter|policy|management)|responsibleai|data[ _]?inspection",
        r"sensitive|prohibited_content|moderation|\b1301\b|\b102[67]\b",
        statuses=(200, 400, 403, 422, 451),
    ),
    _meaning(
        "model_not_found",
        ErrorKind.MODEL,
        r"model[ _]not[ _](found|exist)|(invalid|unknown|no such) model|model_not_supported",
        r"model .{0,80}(does not exist|not found|not exist|is not (available|supported|loaded))",
        r"not a valid model|no models? loaded|deployment[ _]?not[ _]?found|modelnotopen|\b1211\b",
        r"invalid model name|模型不存在",
        statuses=(200, 400, 403, 404, 410, 422),
    ),
    _meaning(
        "model_rate_limited",
        ErrorKind.RATE,
        r"rate[ _-]?limit|too many requests|throttl|requests? per (min|sec)|resource_exhausted",
        r"\b130[23]\b|\b1002\b|请求过(多|快)|频率",
        statuses=(200, 400, 403, 429, 503),
    ),
)
_WAIT = re.compile(
    r"(?:try again|retry|wait)[^0-9]{0,40}?((?:\d+h)?(?:\d+m(?!s))?[\d.]+ ?(?:ms|s\b|sec|min)?)",
    re.IGNORECASE,
)
_PARTS = re.compile(r"([\d.]+) ?(ms|h|m(?:in)?|s(?:ec)?)?", re.IGNORECASE)
_UNIT = {"ms": 0.001, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "sec": 1.0, "": 1.0}


@dataclass(frozen=True, slots=True)
class Said:
    """What a server said: its sentence, and its codes and types."""

    text: str = ""
    codes: tuple[str, ...] = ()
    status: int | None = None  # a status named in the body
    wait: float | None = None  # seconds, named in the body


def failure(
    status: int,
    body: bytes | Any,
    headers: Mapping[str, str],
    model: ModelRef,
    url: str = "",
) -> ModelError:
    """An answer that is none as an error. `url` is the address that was called.

    `status` 200 means: an error inside an answer or a stream.
    """
    said = read_said(body)
    if status < 400:
        status = said.status or 500
    wait = _header_wait(headers)
    if wait is None:
        wait = said.wait
    code, kind = _meaning_of(status, said, wait)
    words = " ".join((*said.codes, said.text)).lower()
    if status in (404, 405) and url and "model" not in words:
        text = f"{url} answered {status}: is base_url right, and is there a model {model}?"
    else:
        text = _sentence(code, status, model)
    if said.text:
        text = f"{text}: {said.text}"
    made = ModelError(text, code=code, kind=kind, retry_after=wait, status=status)
    made.theirs = said.text
    return made


def _meaning_of(status: int, said: Said, wait: float | None) -> tuple[str, ErrorKind]:
    words = " ".join((*said.codes, said.text))
    for meaning in MEANINGS:
        if meaning.statuses and status not in meaning.statuses:
            continue
        if not meaning.words.search(words):
            continue
        if meaning.code == "model_quota" and status == 429 and wait is not None and wait < 3600:
            continue  # Gemini calls its limit for each minute a quota, too, and says when it ends
        return meaning.code, meaning.kind
    return _by_status(status)


def _by_status(status: int) -> tuple[str, ErrorKind]:
    match status:
        case 401:
            return _is("model_unauthorized", ErrorKind.ACCOUNT)
        case 402:
            return _is("model_quota", ErrorKind.ACCOUNT)
        case 403:
            return _is("model_forbidden", ErrorKind.MODEL)
        case 404 | 405 | 410:
            return _is("model_not_found", ErrorKind.MODEL)
        case 429:
            return _is("model_rate_limited", ErrorKind.RATE)
        case 408 | 409 | 425:
            return _is("model_unavailable", ErrorKind.PASSING)
    if status >= 500:
        return _is("model_unavailable", ErrorKind.PASSING)
    return _is("model_refused", ErrorKind.REQUEST)


def _is(code: str, kind: ErrorKind) -> tuple[str, ErrorKind]:
    return code, kind


def _sentence(code: str, status: int, model: ModelRef) -> str:
    provider = model.provider
    match code:
        case "model_quota":
            text = f"the account of provider {provider} is out of credit: add credit"
        case "model_unauthorized":
            text = f"the server of provider {provider} refused its key"
        case "model_too_long":
            text = f"the question is too long for model {model}"
        case "model_filtered":
            text = f"the content filter of model {model} stopped it"
        case "model_rate_limited":
            text = "the model's server asks to wait"
        case "model_forbidden":
            text = f"the key may not use model {model}"
        case "model_not_found":
            text = f"model {model} does not exist or was shut down; choose another one"
        case "model_tool_call":
            text = "the model called a tool wrongly"
        case "model_unavailable":
            text = "the model's server failed"
        case _:
            text = "the model refused the request"
    return f"{text} ({status})"


def read_said(body: bytes | Any) -> Said:
    """The server's words, wherever they stand in a body."""
    if isinstance(body, bytes | bytearray):
        try:
            body = parsed(bytes(body))
        except ValueError:
            return Said(_plain(bytes(body)))
    if isinstance(body, list):  # Gemini
        body = body[0] if body else {}
    if not isinstance(body, dict):
        return Said(clean(str(body)))
    codes: list[str] = []
    text = ""
    for part in _levels(body):
        text = text or _text_in(part)
        for name in ("code", "type", "status", "status_code", "reason"):
            value = part.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool):
                codes.append(str(value))
    status = next((int(c) for c in codes if c.isdigit() and 400 <= int(c) < 600), None)
    return Said(clean(text), tuple(codes), status, _body_wait(body, text))


def _levels(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of an error document, from the inside out."""
    for name in ("error", "detail", "message", "base_resp"):
        inner = body.get(name)
        if isinstance(inner, list):
            inner = next((one for one in inner if isinstance(one, dict)), None)
        if isinstance(inner, Mapping):
            yield from _levels(inner)
    yield body
    if isinstance(body.get("metadata"), Mapping):  # OpenRouter: what its provider said
        yield body["metadata"]


def _text_in(part: Mapping[str, Any]) -> str:
    for name in ("message", "error", "detail", "msg", "status_msg", "error_msg", "raw"):
        value = part.get(name)
        if isinstance(value, list) and value and isinstance(value[0], str):
            value = value[0]
        if isinstance(value, str) and value.strip():
            where = part.get("loc")
            at = ".".join(map(str, where)) + ": " if isinstance(where, list) else ""
            return at + value
    return ""


def _plain(body: bytes) -> str:
    text = body[:20_000].decode("utf-8", "replace")
    if re.match(r"\s*<", text):
        title = re.search(r"<(title|h1)[^>]*>(.*?)</\1>", text, re.IGNORECASE | re.DOTALL)
        named = re.sub(r"<[^>]*>", " ", title.group(2)) if title else ""
        return clean(f"a web page {named}".strip())
    return clean(text)


def clean(text: str) -> str:
    """A server's words as one short line without control characters."""
    text = safe_text.masked(text)
    return safe_text.line(
        " ".join("".join(c if c.isprintable() else " " for c in text).split()), LONGEST
    )


def _body_wait(body: Mapping[str, Any], text: str) -> float | None:
    for part in _levels(body):
        for detail in part.get("details") or ():  # Gemini's RetryInfo
            if isinstance(detail, Mapping) and isinstance(detail.get("retryDelay"), str):
                return seconds(detail["retryDelay"])
        for name in ("retry_after", "retryAfter", "retry_after_seconds"):
            value = part.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return max(0.0, float(value))
    found = _WAIT.search(text[:2000])
    return seconds(found.group(1)) if found else None


def seconds(text: str) -> float | None:
    """A duration as servers write it: "7", "1.5s", "6m0s", "120ms"."""
    total, found = 0.0, False
    for number, unit in _PARTS.findall(text):
        with contextlib.suppress(ValueError):
            total += float(number) * _UNIT[unit.lower()]
            found = True
    return total if found else None


def _header_wait(headers: Mapping[str, str]) -> float | None:
    """LiteLLM hands its provider's headers on under a longer name."""
    for prefix in ("", "llm_provider-"):
        value = headers.get(f"{prefix}retry-after")
        for said, unit in ((headers.get(f"{prefix}retry-after-ms"), 1000), (value, 1)):
            if said:
                with contextlib.suppress(ValueError):
                    return max(0.0, float(said) / unit)
        if value:
            with contextlib.suppress(TypeError, ValueError):
                moment = cast(Any, email.utils.parsedate_to_datetime(value))
                return float(max(0.0, moment.timestamp() - time.time()))
    return None


def unasked(error: BaseException) -> bool:
    """Whether no connection was made, so that nothing can have been billed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


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
