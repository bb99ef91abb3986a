"""umqtt.simple's client over paho, at the port that MQTT_PORT names, whatever the host."""

import os
from collections.abc import Callable

import paho.mqtt.client as paho


class MQTTClient:
    def __init__(self, name: str, server: str, port: int, keepalive: int) -> None:
        self._paho = paho.Client(paho.CallbackAPIVersion.VERSION2, name)
        self._keepalive = keepalive
        self._done = ""

    def set_callback(self, call: Callable[[bytes, bytes], None]) -> None:
        self._paho.on_message = lambda _, __, message: call(message.topic.encode(), message.payload)

    def connect(self) -> None:
        self._paho.on_connect = lambda *_: self._was("connect")
        self._paho.on_subscribe = lambda *_: self._was("subscribe")
        self._paho.connect("127.0.0.1", int(os.environ["MQTT_PORT"]), self._keepalive)
        self._until("connect")

    def subscribe(self, topic: bytes, qos: int = 0) -> None:
        self._paho.subscribe(topic.decode(), qos)
        self._until("subscribe")

    def publish(self, topic: bytes, payload: bytes | str) -> None:
        self._paho.publish(topic.decode(), payload)

    def check_msg(self) -> None:
        self._paho.loop(0.01)

    def _was(self, what: str) -> None:
        self._done = what

    def _until(self, what: str) -> None:
        while self._done != what:
            self._paho.loop(0.1)
        self._done = ""
