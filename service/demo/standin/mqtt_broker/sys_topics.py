"""`$SYS`: the topics that people look at, under EMQX's names and the few of mosquitto's."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from service.demo.standin.published import NODE, Message, now_ms

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.client_connection import Connection
    from service.demo.standin.mqtt_broker.core import MqttBroker
    from service.demo.standin.mqtt_broker.session import Session

EVERY = 30.0  # seconds
ROOT = f"$SYS/brokers/{NODE}"


class SysTopics:
    """Told to subscribers alone, never to rules, as in EMQX; new ones get the current values."""

    def __init__(self, broker: MqttBroker) -> None:
        self._broker = broker
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        for message in self.current():
            self._broker.dispatch(message)
        self.start()

    def current(self) -> Iterator[Message]:
        """One message for each topic, with what holds now."""
        broker = self._broker
        uptime = broker.uptime_ms // 1000
        clients = broker.client_count
        received, sent = broker.counters["messages.received"], broker.counters["messages.sent"]
        values: dict[str, object] = {
            "$SYS/brokers": NODE,
            f"{ROOT}/version": broker.version,
            f"{ROOT}/sysdescr": "stand-in for EMQX",
            f"{ROOT}/uptime": uptime * 1000,
            f"{ROOT}/datetime": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            f"{ROOT}/stats/connections/count": clients,
            f"{ROOT}/stats/sessions/count": len(broker.sessions),
            f"{ROOT}/stats/subscriptions/count": broker.subscription_count,
            f"{ROOT}/stats/retained/count": len(broker.retained),
            f"{ROOT}/metrics/messages/received": received,
            f"{ROOT}/metrics/messages/sent": sent,
            "$SYS/broker/version": f"stand-in for EMQX {broker.version}",
            "$SYS/broker/uptime": f"{uptime} seconds",
            "$SYS/broker/clients/connected": clients,
            "$SYS/broker/messages/received": received,
            "$SYS/broker/messages/sent": sent,
        }
        for topic, value in values.items():
            yield Message(topic=topic, payload=str(value).encode())

    def connected(self, link: Connection, session: Session) -> None:
        assert link.hello is not None
        told = {
            "clientid": session.client_id,
            "ipaddress": link.peer[0],
            "proto_ver": link.version,
            "clean_start": link.hello.clean_start,
            "keepalive": link.hello.keepalive,
            "connected_at": session.connected_at,
        }
        self._tell(session, "connected", {**told, "ts": now_ms()})

    def disconnected(self, session: Session) -> None:
        told = {"clientid": session.client_id, "disconnected_at": session.disconnected_at}
        self._tell(session, "disconnected", {**told, "ts": now_ms()})

    def _tell(self, session: Session, what: str, told: dict[str, object]) -> None:
        topic = f"{ROOT}/clients/{session.client_id}/{what}"
        self._broker.dispatch(Message(topic=topic, payload=json.dumps(told).encode()))
