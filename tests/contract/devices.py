"""MQTT clients as devices have them: paho, in 3.1.1 and in 5."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.contract.brokers import Broker


@dataclass(frozen=True)
class Heard:
    """A message that a device received."""

    topic: str
    payload: bytes
    retain: bool
    properties: dict[str, Any]


class Device:
    """One connected client. `publish` waits for the broker's acknowledgement."""

    def __init__(self, client: mqtt.Client) -> None:
        self._client = client
        self._heard: list[Heard] = []
        self._changed = threading.Condition()
        self._granted = threading.Event()
        client.on_message = self._on_message
        client.on_subscribe = lambda *_: self._granted.set()

    def publish(
        self,
        topic: str,
        payload: str | bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        info = self._client.publish(topic, payload, qos, retain, properties)
        info.wait_for_publish(30)
        assert info.is_published(), f"no acknowledgement for {topic}"

    def subscribe(self, topic: str) -> None:
        self._granted.clear()
        self._client.subscribe(topic, 1)
        assert self._granted.wait(30), f"subscription to {topic} not granted"

    def drop(self) -> None:
        """Go without a word: the broker publishes the will."""
        self._client.loop_stop()
        if (sock := self._client.socket()) is not None:
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def wait(self, done: Callable[[list[Heard]], bool], timeout: float = 30.0) -> list[Heard]:
        """What was heard, once `done(heard)`."""
        end = time.monotonic() + timeout
        with self._changed:
            while not done(self._heard):
                left = end - time.monotonic()
                assert left > 0, f"not within {timeout} s; heard {self._heard}"
                self._changed.wait(min(left, 1.0))
            return list(self._heard)

    def _on_message(self, _: object, __: object, message: mqtt.MQTTMessage) -> None:
        properties = message.properties.json() if message.properties else {}
        if message.properties and hasattr(message.properties, "CorrelationData"):
            properties["CorrelationData"] = message.properties.CorrelationData
        heard = Heard(message.topic, message.payload, message.retain, properties)
        with self._changed:
            self._heard.append(heard)
            self._changed.notify_all()


@contextmanager
def device(
    broker: Broker, client_id: str, *, version: int = 4, will: tuple[str, str] | None = None
) -> Iterator[Device]:
    """A connected device; `version` 4 is MQTT 3.1.1, 5 is MQTT 5. `will`: topic and payload."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version)
    if will is not None:
        client.will_set(*will, qos=1)
    connected = threading.Event()

    def on_connect(_: object, __: object, ___: object, reason: ReasonCode, ____: object) -> None:
        # Not every CONNACK is a success: a client id may still be in clearing. paho tries again.
        if not reason.is_failure:
            connected.set()

    client.on_connect = on_connect
    client.connect(broker.mqtt_host, broker.mqtt_port, keepalive=60)
    client.loop_start()
    try:
        assert connected.wait(30), f"{broker.name} did not accept {client_id}"
        yield Device(client)
    finally:
        client.disconnect()
        client.loop_stop()
