"""What can go wrong with the fake model: OpenAI's errors, broken bodies, broken wires."""

import asyncio

import orjson

from tests.fakes.model_steps import Completion, named
from tests.fakes.model_wire import Exchange, Step

_KNOWN = {
    "rate_limit_exceeded": ("requests", "Rate limit reached. Please try again in 1s."),
    "insufficient_quota": (
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "invalid_api_key": ("invalid_request_error", "Incorrect API key provided: fake."),
    "model_not_found": (
        "invalid_request_error",
        "The model does not exist or you do not have access to it.",
    ),
    "context_length_exceeded": (
        "invalid_request_error",
        "This model's maximum context length is 128000 tokens.",
    ),
    "server_error": ("server_error", "The server had an error while processing your request."),
}
_USUAL = {
    401: "invalid_api_key",
    404: "model_not_found",
    429: "rate_limit_exceeded",
    500: "server_error",
}


def status(
    code: int,
    error_code: str | None = None,
    message: str | None = None,
    retry_after: float | str | None = None,
) -> Step:
    """An error in OpenAI's shape; code and message are the usual ones of the status."""
    error_code = error_code or _USUAL.get(code)
    usual = "server_error" if code >= 500 else "invalid_request_error"
    kind, text = _KNOWN.get(error_code or "", (usual, f"fake error {code}"))
    error = {"message": message or text, "type": kind, "param": None, "code": error_code}
    body = orjson.dumps({"error": error})
    headers = [] if retry_after is None else [(b"retry-after", str(retry_after).encode())]

    async def play(exchange: Exchange) -> None:
        await exchange.answer(code, body, headers)

    return named(f"{code} {error_code}" if error_code else str(code), play)


def page(code: int, body: bytes = b"<html>Bad Gateway</html>") -> Step:
    """An error that is no JSON, as proxies in between answer."""

    async def play(exchange: Exchange) -> None:
        await exchange.answer(code, body, [(b"content-type", b"text/html")])

    return named(f"{code} page", play)


def cut() -> Step:
    """Half of a good body, then the connection ends."""

    async def play(exchange: Exchange) -> None:
        whole = Completion("cut").whole(exchange.call.body, exchange.number)
        await exchange.begin(orjson.dumps(whole))
        await exchange.close()

    return named("cut", play)


def reset() -> Step:
    """A TCP reset before any answer."""

    async def play(exchange: Exchange) -> None:
        await exchange.close(reset=True)

    return named("reset", play)


def garbage(body: bytes = b'{"id": "chatcmpl-1", "choices": [{"mess') -> Step:
    """200 with a body that is no JSON."""

    async def play(exchange: Exchange) -> None:
        await exchange.answer(200, body)

    return named("garbage", play)


def no_http(data: bytes = b"HTTP/1.1 abc nonsense\r\n\r\n") -> Step:
    """Something that is no HTTP."""

    async def play(exchange: Exchange) -> None:
        await exchange.raw(data)

    return named("no_http", play)


def wrong_shape(body: bytes = b'{"object": "something else", "result": "ok"}') -> Step:
    """200 with JSON that is no completion."""

    async def play(exchange: Exchange) -> None:
        await exchange.answer(200, body)

    return named("wrong_shape", play)


def stream_then_cut(text: str, after: int, once: asyncio.Event | None = None) -> Step:
    """So many words of a stream, then the connection ends; a plain call is cut too.

    What is still on its way when a connection breaks, nobody may rely on: who asserts on those
    words sets `once` when they were heard.
    """
    return _partly(Completion(text, cut_after=after, cut_once=once), "stream_then_cut")


def stream_then_error(text: str, after: int) -> Step:
    """So many words of a stream, then an error event; a plain call gets a 500."""
    return _partly(Completion(text, error_after=after), "stream_then_error")


def _partly(completion: Completion, name: str) -> Step:
    plain = cut() if completion.cut_after is not None else status(500)

    async def play(exchange: Exchange) -> None:
        await (completion if exchange.call.body.get("stream") else plain)(exchange)

    return named(name, play)
