"""HTTP to an MCP server: a failure is an answer, so that it ends its own call and not those
beside it on the connection; what comes is unpacked and bounded.

What became of the call is told by the code of a JSON-RPC error, of which these are ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from service.bodies import ENCODINGS, BodyTooLarge, unpacked

AWAY = -31901  # it was not reached: nothing was done
LOST = -31902  # it was reached, and its answer was not read
REFUSED = -31903  # it does not take the token: nothing was done
FORGOTTEN = -31904  # it knows no such session any more: nothing was done

MOST = 4 << 20  # bytes of an answer; what models are told of it is far less
CONNECT = 5.0  # seconds
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


class Transport(httpx2.AsyncBaseTransport):
    """`token` goes along with each request, as a bearer token."""

    def __init__(self, token: str | None) -> None:
        # Shorter than servers keep idle connections: one that closes as we write fails a call.
        limits = httpx2.Limits(keepalive_expiry=2.0)
        self._inner = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)
        self._token = token

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = ENCODINGS
        if self._token is not None:
            request.headers["authorization"] = f"Bearer {self._token}"
        try:
            response = await self._inner.handle_async_request(request)
        except _NOT_SENT:
            return _said(AWAY, "does not answer at its address")
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            return _said(LOST, f"broke off ({type(error).__name__})")
        status = response.status_code
        if status in (401, 403):
            what = "wants a token" if self._token is None else "refuses the token"
            code, text = REFUSED, f"{what} ({status})"
        elif status in (400, 404) and "mcp-session-id" in request.headers:
            code, text = FORGOTTEN, f"knows no such session any more ({status})"
        elif status >= 500:
            code, text = LOST, f"answered {status}"
        else:
            response.stream = _BoundedBody(response)
            return response
        await response.aclose()
        return _said(code, text)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _said(code: int, text: str) -> httpx2.Response:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text}}
    return httpx2.Response(502, json=error)


class _BoundedBody(httpx2.AsyncByteStream):
    """An answer, unpacked. A stream of events may be endless; the SDK bounds each of them."""

    def __init__(self, response: httpx2.Response) -> None:
        self._stream = response.stream
        self._encoding = response.headers.pop("content-encoding", "")
        kind = response.headers.get("content-type", "").lower()
        self._most = None if kind.startswith("text/event-stream") else MOST

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not isinstance(self._stream, httpx2.AsyncByteStream):
            raise TypeError("the answer is no stream")
        try:
            async for piece in unpacked(self._stream, self._encoding, self._most):
                yield piece
        except (httpx2.TransportError, BodyTooLarge, ValueError) as error:
            # The one kind of error that the SDK takes for this answer's alone.
            raise httpx2.StreamError(f"it can't be read: {error or type(error).__name__}") from None

    async def aclose(self) -> None:
        if isinstance(self._stream, httpx2.AsyncByteStream):
            await self._stream.aclose()
