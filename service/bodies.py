"""Bodies as strangers send them: unpacked, and never more of them than so many bytes; JSON, and
never nested deeper than all that reads it can follow. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import orjson

ENCODINGS = "gzip, deflate"
"""What to ask for: what can be unpacked in pieces, so that a small answer can't become a huge
one in memory."""
_PIECE = 64 << 10
DEEPEST = 100
"""Lists and objects within each other: far below what Python's stack and orjson can write."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_AS_LISTS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class BodyTooLarge(Exception):
    """More than `most` bytes, once unpacked."""

    def __init__(self, most: int) -> None:
        super().__init__(f"more than {most} bytes")
        self.most = most


async def unpacked(
    chunks: AsyncIterable[bytes], encoding: str, most: int | None
) -> AsyncIterator[bytes]:
    """The body in pieces. `encoding`: its Content-Encoding; `most`: bytes, None for no bound.

    Raises BodyTooLarge, and ValueError for what can't be unpacked.
    """
    packed = encoding.strip().lower()
    if packed not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise ValueError("an encoding that nobody asked for")
    size = 0
    async for piece in _plain(chunks) if packed in ("", "identity") else _inflated(chunks):
        size += len(piece)
        if most is not None and size > most:
            raise BodyTooLarge(most)
        yield piece


async def _plain(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk


async def _inflated(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # the header tells which of the two
    try:
        async for chunk in chunks:
            left = chunk
            while left:
                yield inflate.decompress(left, _PIECE)
                left = inflate.unconsumed_tail
        yield inflate.flush()
    except zlib.error as error:
        raise ValueError("what it sent can't be unpacked") from error


def parsed(text: bytes | str) -> Any:
    """A JSON document. Raises ValueError, also for one nested deeper than DEEPEST."""
    value = orjson.loads(text)
    if too_deep(text):
        raise ValueError(f"nested deeper than {DEEPEST}")
    return value


def too_deep(text: bytes | str) -> bool:
    """Whether a text that is JSON is nested deeper than DEEPEST."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if data.count(b"[") + data.count(b"{") <= DEEPEST:
        return False
    brackets = _STRING.sub(b"", data).translate(_AS_LISTS, _NO_BRACKETS)
    for _ in range(DEEPEST):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
