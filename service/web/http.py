"""What all endpoints share: the one error shape, bodies with a bound, tokens."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from service.bodies import parsed
from service.errors import (
    ApiError,
    BadRequest,
    NotJson,
    TooLarge,
    TooManyAttempts,
    Unauthorized,
    Unavailable,
)
from service.operations.insights import cleaned
from service.web.origin import is_json

log = logging.getLogger("emqx-gpt.web")


class JSON(Response):
    """A JSON answer, written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        try:
            return orjson.dumps(content)
        except TypeError:  # lone surrogates, in whatever a device may choose
            return orjson.dumps(cleaned(content))


def error_response(error: ApiError) -> JSON:
    """The one error shape: {"error": {"code", "message"}}."""
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable | TooManyAttempts):
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    body = {"error": {"code": error.code, "message": error.message}}
    return JSON(body, status_code=error.status, headers=headers)


class Tokens:
    """Bearer tokens that are valid now; none at all means open (loopback only)."""

    def __init__(self, name: str, tokens: tuple[str, ...]) -> None:
        self._name = name
        self._valid = tuple(f"Bearer {token}".encode() for token in tokens)

    def check(self, header: bytes | None) -> None:
        """Raises Unauthorized unless the Authorization header carries a valid token."""
        if not self._valid:
            return
        given = header or b""
        # All are compared, so that the time taken tells nothing.
        matches = [hmac.compare_digest(given, valid) for valid in self._valid]
        if not any(matches):
            what = "is wrong" if header else "is missing"
            raise Unauthorized(f"the bearer token {what}; it is {self._name} of the service")


def find(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """A header of a request as ASGI has them, by its lower-case name."""
    for key, value in headers:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises TooLarge over `limit` bytes, without reading further."""
    length = find(scope["headers"], b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        raise TooLarge(f"the body has {int(length)} bytes; MAX_BODY is {limit}")
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise BadRequest("the caller went away before its body had come", code="disconnected")
        chunk = event.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than MAX_BODY = {limit} bytes")
        chunks.append(chunk)
        if not event.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def json_object(request: Request, limit: int) -> Mapping[str, Any]:
    """The body as a JSON object. Raises NotJson, BadRequest, TooLarge."""
    if not is_json(request.headers.get("content-type")):
        raise NotJson("send JSON, with the header Content-Type: application/json")
    body = await read_body(request.scope, request.receive, limit)
    try:
        document = parsed(body)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}", code="not_json") from None
    if not isinstance(document, dict):
        raise BadRequest("the body is not a JSON object", code="not_an_object")
    return document
