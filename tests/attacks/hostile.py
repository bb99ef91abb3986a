"""A model's server, or EMQX's API, that means harm: answers without end, bombs, lures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator

MEGABYTE = b"x" * 1_000_000
HUGE = 150  # MB, at most, of one answer

Reply = Callable[[], Iterator[bytes]]


def head(kind: str, *more: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def event(**delta: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def bomb(opening: bytes) -> bytes:
    """Gzip of `opening` and hundreds of MB more: a thousandth of that."""
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(opening) + b"".join(
        packer.compress(MEGABYTE) for _ in range(4 * HUGE)
    ) + packer.flush()  # fmt: skip


BEGINNING = b'{"choices": [{"finish_reason": "stop", "message": {"content": "'
GZIP = "Content-Encoding: gzip"
STREAM, JSON = "text/event-stream", "application/json"


def endless(*opening: bytes, piece: bytes = MEGABYTE) -> Reply:
    def reply() -> Iterator[bytes]:
        yield from opening
        for _ in range(HUGE * 1_000_000 // len(piece)):
            yield piece

    return reply


def once(*pieces: bytes) -> Reply:
    return lambda: iter(pieces)


CALL = {"index": 0, "id": "1", "function": {"name": "set_light", "arguments": "{" * 900}}
CALLS = [CALL | {"index": number, "id": str(number)} for number in range(500)]
ANSWERS: dict[str, tuple[Reply, str]] = {
    "plain": (endless(head(JSON), BEGINNING), "model_answer_too_large"),
    "plain_gzip": (once(head(JSON, GZIP), bomb(BEGINNING)), "model_answer_too_large"),
    "stream_line": (endless(head(STREAM), b"data: "), "model_answer_too_large"),
    "stream_events": (
        endless(head(STREAM), piece=event(content="many words " * 100) * 50),
        "model_answer_too_large",
    ),
    "stream_reasoning": (
        endless(head(STREAM), piece=event(reasoning_content="well, now ") * 500),
        "model_answer_too_large",
    ),
    "stream_gzip": (once(head(STREAM, GZIP), bomb(b"data: ")), "model_answer_too_large"),
    "tool_arguments": (
        endless(head(STREAM), piece=event(tool_calls=[CALL]) * 50),
        "model_answer_too_large",
    ),
    "tool_calls": (
        once(head(STREAM), *(event(tool_calls=[call]) for call in CALLS)),
        "model_answer_too_large",
    ),
    "error": (endless(head(JSON, status="422 No"), b'{"error": "'), "model_refused"),
    "error_gzip": (once(head(JSON, GZIP, status="422 No"), bomb(b"{")), "model_refused"),
    "redirect": (
        once(head(JSON, "Location: http://127.0.0.2:9/v1?key=secret", status="307 Go")),
        "model_redirected",
    ),
    "headers": (endless(b"HTTP/1.1 200 OK\r\n", piece=b"x-y: z\r\n" * 100_000), "model_connection"),
    "odd_encoding": (once(head(JSON, "Content-Encoding: br"), MEGABYTE), "model_garbage"),
    "not_gzip": (once(head(JSON, GZIP), MEGABYTE), "model_garbage"),
}


@contextlib.asynccontextmanager
async def hostile(reply: Reply) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The server's address, and the requests that came to it."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            for piece in reply():
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()
