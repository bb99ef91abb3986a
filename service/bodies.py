"""Bodies of HTTP answers, unpacked, and never more of them than so many bytes. Pure."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator

ENCODINGS = "gzip, deflate"
"""What to ask for: what can be unpacked in pieces, so that a small answer can't become a huge
one in memory."""
_PIECE = 64 << 10


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
