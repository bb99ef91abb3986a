"""EMQX's HTTP answers: bounded in bytes, and nothing is followed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from service.bodies import ENCODINGS, BodyTooLarge, unpacked
from service.errors import BrokerError

MOST = 16 << 20
"""Bytes: a page of 500 rules has one or two million, a retained message is one."""
HEADERS = {"accept-encoding": ENCODINGS}


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response) -> None:
        self._stream: Any = response.stream
        self._encoding = response.headers.pop("content-encoding", "")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in unpacked(self._stream, self._encoding, MOST):
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def fetch(
    http: httpx.AsyncClient, request: httpx.Request, auth: Any = httpx.USE_CLIENT_DEFAULT
) -> httpx.Response:
    """The whole answer. Raises BrokerError for one that is too large or can't be unpacked."""
    answer = await http.send(request, auth=auth, stream=True, follow_redirects=False)
    answer.stream = _Body(answer)
    try:
        async with contextlib.aclosing(answer):
            await answer.aread()
    except (BodyTooLarge, ValueError) as error:
        said = f"what EMQX_URL answers can't be read: {error}"
        raise BrokerError(said, code="broker_strange", status=answer.status_code) from None
    return answer
