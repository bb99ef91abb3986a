"""Attacks on a port by somebody without a token: `python -m tests.attacks.port NAME PORT SECONDS`.

Each goes on for so many seconds, to 127.0.0.1 alone, and then ends by itself.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator

HEAD = b"POST /webhook HTTP/1.1\r\nHost: 127.0.0.1\r\n"
JUNK = b"x" * 65_536


def dial(port: int, source: int = 0) -> socket.socket:
    """A connection; `source`: from which of the machine's own addresses, 127.0.1.x."""
    sock = socket.socket()
    sock.settimeout(2)
    if source:
        sock.bind((f"127.0.1.{source}", 0))
    sock.connect(("127.0.0.1", port))
    return sock


def pour(port: int, ends: float, opening: bytes, flow: Callable[[int], bytes]) -> None:
    """One connection that says `opening` and then never stops; again when it is closed."""
    number = 0
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), dial(port) as sock:
            sock.sendall(opening)
            while time.monotonic() < ends:
                sock.sendall(flow(number))
                number += 1


def hold(port: int, ends: float, opening: bytes, count: int, drip: bytes = b"") -> None:
    """`count` connections that say `opening` and then next to nothing; those that are closed
    are opened again."""
    open_: list[socket.socket] = []
    try:
        while time.monotonic() < ends:
            while len(open_) < count and time.monotonic() < ends:
                with contextlib.suppress(OSError):
                    sock = dial(port, 1 + len(open_) % 3)
                    sock.setblocking(False)
                    open_.append(sock)
                    with contextlib.suppress(BlockingIOError):
                        sock.send(opening)
            for sock in list(open_):
                try:
                    if drip:
                        sock.send(drip)
                    elif not sock.recv(65_536):
                        raise ConnectionError
                except BlockingIOError:
                    pass
                except OSError:
                    sock.close()
                    open_.remove(sock)
            time.sleep(0.05)
    finally:
        for sock in open_:
            sock.close()


def repeated(port: int, ends: float, words: Iterator[bytes]) -> None:
    """A new connection for each of `words`."""
    for word in words:
        if time.monotonic() >= ends:
            return
        with contextlib.suppress(OSError), dial(port) as sock:
            sock.sendall(word)
            sock.recv(1_000)


def unread(port: int, ends: float, count: int = 20) -> None:
    """Requests one behind the other, whose answers nobody reads."""
    request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 500
    watch = selectors.DefaultSelector()
    while time.monotonic() < ends:
        while len(watch.get_map()) < count:
            sock = dial(port)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            sock.setblocking(False)
            watch.register(sock, selectors.EVENT_WRITE)
        for key, _ in watch.select(0.1):
            assert isinstance(key.fileobj, socket.socket)
            try:
                key.fileobj.send(request)
            except BlockingIOError:
                continue
            except OSError:
                watch.unregister(key.fileobj)
                key.fileobj.close()


def garbage() -> Iterator[bytes]:
    hello = bytes.fromhex("1603010200010001fc0303")
    while True:
        yield from (b"\0" * 100, hello + JUNK[:200], b"GET\r\n\r\n", b"MQTT\x04\xc2", b"\x10\x20")
        yield from (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )


HALF = HEAD + b"Content-Type: application/json\r\nContent-Length: 4000000\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

ATTACKS: dict[str, Callable[[int, float], None]] = {
    "headers_without_end": lambda port, ends: pour(
        port, ends, HEAD, lambda n: b"".join(b"x-%d: %b\r\n" % (i, JUNK[:90]) for i in range(600))
    ),
    "one_header_without_end": lambda port, ends: pour(port, ends, HEAD + b"x: ", lambda n: JUNK),
    "url_without_end": lambda port, ends: pour(port, ends, b"GET /", lambda n: JUNK),
    "chunk_extensions": lambda port, ends: pour(port, ends, CHUNKED + b"1;", lambda n: JUNK),
    "trailers": lambda port, ends: pour(
        port, ends, CHUNKED + b"0\r\n", lambda n: b"x-%d: y\r\n" % n * 2_000
    ),
    "half_heads": lambda port, ends: hold(port, ends, HEAD + b"x: ", 600, b"y"),
    "half_bodies": lambda port, ends: hold(port, ends, HALF + JUNK * 16, 600),
    "idle_connections": lambda port, ends: hold(port, ends, b"", 900),
    "unread_answers": lambda port, ends: unread(port, ends),
    "garbage": lambda port, ends: repeated(port, ends, garbage()),
    "wrong_tokens": lambda port, ends: pour(
        port,
        ends,
        b"",
        lambda n: (HEAD + b"Authorization: Bearer %d\r\nContent-Length: 2\r\n\r\n{}" % n) * 50,
    ),
}  # fmt: skip

if __name__ == "__main__":
    ATTACKS[sys.argv[1]](int(sys.argv[2]), time.monotonic() + float(sys.argv[3]))
