"""What a model's server sends: unpacked, bounded in bytes, and refusals as they came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import httpx2
import openai

from service.bodies import BodyTooLarge, unpacked

# Bytes that may come for each byte of an answer: \uXXXX, an event around each token.
WHOLE, STREAM = 4, 100
PIECE = 4 << 10  # bytes that are worked through at once
MAX_ERROR = 64 << 10  # bytes that are looked at of a refusal

BROKEN = (
    TimeoutError,
    openai.APIConnectionError,
    httpx2.TransportError,
    aiohttp.ClientError,  # the SDK's transport lets some through, on what is no HTTP
)


class RefusedAnswer(Exception):
    """An answer that is none, as it came."""

    def __init__(self, response: httpx2.Response, content: bytes) -> None:
        self.response = response
        self.content = content


FAILURES = (
    *(RefusedAnswer, *BROKEN, httpx2.HTTPError, openai.OpenAIError, ValueError),
    *(BodyTooLarge, RecursionError),
)


class Body(httpx2.AsyncByteStream):
    """What a server sends, unpacked and bounded in bytes: in all, and up to the end of a line."""

    def __init__(self, response: httpx2.Response, most: int, line: int | None = None) -> None:
        self._most, self._line = most, line or most
        self._stream = response.stream
        self._encoding = response.headers.pop("content-encoding", "")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not isinstance(self._stream, httpx2.AsyncByteStream):
            raise TypeError("the answer is no stream")
        unended = 0
        async for piece in unpacked(self._stream, self._encoding, self._most):
            at = piece.rfind(b"\n")
            unended = unended + len(piece) if at < 0 else len(piece) - at
            if unended > self._line:
                raise BodyTooLarge(self._line)
            for start in range(0, len(piece), PIECE):
                yield piece[start : start + PIECE]
                await asyncio.sleep(0)  # who is never silent must not keep the others waiting

    async def aclose(self) -> None:
        if isinstance(self._stream, httpx2.AsyncByteStream):
            await self._stream.aclose()


async def beginning(response: httpx2.Response) -> bytes:
    """As much as is looked at of what a server says beside a bad status."""
    pieces = []
    with contextlib.suppress(BodyTooLarge, ValueError):
        async for piece in response.aiter_bytes():
            pieces.append(piece)
    return b"".join(pieces)
