"""The brokers that the contract suite runs against: the stand-in always, a real one if named.

TEST_EMQX_URL     http://127.0.0.1:18083
TEST_EMQX_MQTT    127.0.0.1:1883
TEST_EMQX_KEY, TEST_EMQX_SECRET    an API key that may configure
TEST_WEBHOOK_HOST the name under which the broker reaches this machine, if not 127.0.0.1
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

REAL = ("TEST_EMQX_URL", "TEST_EMQX_MQTT", "TEST_EMQX_KEY", "TEST_EMQX_SECRET")
WEBHOOK_HOST = os.environ.get("TEST_WEBHOOK_HOST", "127.0.0.1")


@dataclass(frozen=True)
class Broker:
    """How a broker is reached; `name` only tells failures apart."""

    name: str
    url: str
    mqtt_host: str
    mqtt_port: int
    key: tuple[str, str]


def named() -> list[str]:
    """`stand-in`, and `real` if one is named. Half a name is an error, not a skip."""
    given = [name for name in REAL if os.environ.get(name)]
    if not given:
        return ["stand-in"]
    if len(given) < len(REAL):
        missing = ", ".join(sorted(set(REAL) - set(given)))
        raise RuntimeError(f"a real broker needs {missing} too")
    return ["stand-in", "real"]


@contextmanager
def running(name: str) -> Iterator[Broker]:
    """The broker of that name."""
    if name == "real":
        host, _, port = os.environ["TEST_EMQX_MQTT"].rpartition(":")
        key = (os.environ["TEST_EMQX_KEY"], os.environ["TEST_EMQX_SECRET"])
        yield Broker(name, os.environ["TEST_EMQX_URL"].rstrip("/"), host, int(port), key)
        return
    with stand_in() as broker:
        yield broker


@contextmanager
def stand_in() -> Iterator[Broker]:
    """The stand-in in a thread of its own, so that tests see nothing of it but its ports."""
    from service.demo.standin.broker import StandIn

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    broker = StandIn()
    try:
        asyncio.run_coroutine_threadsafe(broker.start(), loop).result(20)
        try:
            yield Broker(
                "stand-in", broker.rest_url, "127.0.0.1", broker.mqtt_port, ("key", "secret")
            )
        finally:
            asyncio.run_coroutine_threadsafe(broker.stop(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
