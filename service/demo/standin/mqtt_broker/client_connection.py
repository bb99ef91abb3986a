"""One client's connection: its packets come in, its messages go out. No sockets here."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from service.demo.standin.mqtt_broker import packets
from service.demo.standin.mqtt_broker.outbox import Delivery
from service.demo.standin.mqtt_broker.packets import (
    MQTT_5,
    AckPacket,
    ConnectPacket,
    DisconnectPacket,
    Packet,
    PingPacket,
    PublishPacket,
    SubscribePacket,
    Type,
    UnsubscribePacket,
)
from service.demo.standin.mqtt_broker.properties import for_subscriber, pub_props
from service.demo.standin.mqtt_broker.reason_codes import (
    ProtocolFault,
    Reason,
    malformed,
    protocol_error,
)
from service.demo.standin.mqtt_broker.router import MAX_LEVELS
from service.demo.standin.mqtt_broker.wire import MAX_PACKET_SIZE, Splitter
from service.demo.standin.published import Message, now_ms
from service.mqtt.topics import fault_in_name

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.core import MqttBroker
    from service.demo.standin.mqtt_broker.session import Session

log = logging.getLogger(__name__)

FIRST_PACKET = 15.0  # seconds until CONNECT has to be there
GRACE = 1.5  # keepalives without a packet, and the client is taken for gone
MAX_RELEASES = 100  # QoS 2 messages of a client not yet released, as EMQX's max_awaiting_rel
MAX_ALIASES = 65535
MAX_UNREAD = 4 * 1024 * 1024  # bytes for a client that does not read; then it is cut off


class Socket(Protocol):
    """TCP or WebSocket, as a connection sees it."""

    peer: tuple[str, int]
    is_writable: bool

    def write(self, data: bytes) -> None: ...

    def unsent(self) -> int:
        """Bytes still in memory."""

    def close(self) -> None:
        """Once all is sent, or soon."""


class Connection:
    """Fed with bytes by a listener; tells the broker what its client wants."""

    def __init__(self, broker: MqttBroker, socket: Socket, number: int) -> None:
        self._broker = broker
        self._socket = socket
        self._splitter = Splitter()
        self._aliases: dict[int, str] = {}
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(FIRST_PACKET, self._too_late)
        self._max_packet = MAX_PACKET_SIZE * 256
        self.is_open = True
        self.session: Session | None = None
        self.hello: ConnectPacket | None = None
        self.will: PublishPacket | None = None
        self.receive_maximum = 65535
        self.source = f"mqtt-{number}"
        self.received = self.sent = 0  # packets

    @property
    def peer(self) -> tuple[str, int]:
        return self._socket.peer

    @property
    def version(self) -> int:
        return self.hello.version if self.hello else 4

    @property
    def is_writable(self) -> bool:
        return self._socket.is_writable

    # from the listener

    def receive(self, data: bytes) -> None:
        """Bytes as they come; packets are dealt with before this returns."""
        self._heard = self._loop.time()
        try:
            for first, body in self._splitter.feed(data):
                if not self.is_open:
                    return
                if self.hello is None and first >> 4 != Type.CONNECT:
                    raise protocol_error("the first packet is no CONNECT")
                self.received += 1
                self._handle(packets.read(first, body, self.version))
        except ProtocolFault as exc:
            self.end(exc.reason, exc.words)
        except Exception:  # a fault of ours ends this connection and no other
            log.exception("an MQTT packet could not be dealt with")
            self.end(Reason.UNSPECIFIED_ERROR, "an internal error")

    def writable_again(self) -> None:
        if self.session is not None and self.session.link is self:
            self.session.outbox.pump()

    def lost(self) -> None:
        """The socket is gone."""
        self._timer.cancel()
        if self.is_open:
            self.is_open = False
            self._broker.left(self)

    # to the client

    def end(self, reason: Reason, words: str = "") -> None:
        """Closes for a reason, which an MQTT 5 client is told; its will goes out."""
        if not self.is_open:
            return
        name = self.session.client_id if self.session else "?"
        level = logging.DEBUG if reason < 0x80 else logging.INFO
        log.log(level, "MQTT client %r at %s:%d: %s", name, *self.peer, words or reason.name)
        if self.session is not None and self.version == MQTT_5:
            self._write(packets.disconnect(reason, words))
        elif self.hello is None and reason in (
            Reason.UNSUPPORTED_PROTOCOL_VERSION,
            Reason.BAD_AUTHENTICATION_METHOD,
            Reason.CLIENT_IDENTIFIER_NOT_VALID,
        ):
            self._write(packets.connack(self.version, reason, properties={}))
        self._close()

    def _close(self) -> None:
        self.is_open = False
        self._timer.cancel()
        self._broker.left(self)
        self._socket.close()

    def send_delivery(self, delivery: Delivery, packet_id: int, dup: bool) -> bool:
        message = delivery.message
        properties = for_subscriber(message, now_ms())
        if properties is None:
            return False
        if delivery.identifiers:
            properties["Subscription-Identifier"] = list(delivery.identifiers)
        data = packets.publish(
            self.version,
            PublishPacket(
                message.topic,
                message.payload,
                delivery.qos,
                delivery.retain,
                dup,
                packet_id,
                properties,
            ),
        )
        if len(data) > self._max_packet:
            return False
        self._broker.count("messages.sent")
        self._write(data)
        return True

    def send_ack(self, kind: Type, packet_id: int, reason: Reason = Reason.SUCCESS) -> None:
        self._write(packets.ack(self.version, kind, packet_id, reason))

    def _write(self, data: bytes) -> None:
        self.sent += 1
        self._socket.write(data)
        if self._socket.unsent() > MAX_UNREAD and self.is_open:
            log.warning("an MQTT client at %s:%d does not read; cut off", *self.peer)
            self._close()

    # from the client

    def _handle(self, packet: Packet) -> None:
        match packet:
            case PublishPacket():
                self._publish(packet)
            case AckPacket():
                self._acknowledge(packet)
            case PingPacket():
                self._write(packets.pingresp())
            case SubscribePacket():
                assert self.session is not None
                codes, retained = self._broker.subscribe(self.session, packet)
                self._write(packets.suback(self.version, packet.packet_id, codes))
                for delivery in retained:
                    self.session.outbox.put(delivery)
            case UnsubscribePacket():
                assert self.session is not None
                codes = self._broker.unsubscribe(self.session, packet.filters)
                self._write(packets.unsuback(self.version, packet.packet_id, codes))
            case DisconnectPacket():
                self._disconnect(packet)
            case ConnectPacket():
                self._connect(packet)

    def _connect(self, packet: ConnectPacket) -> None:
        if self.hello is not None:
            raise protocol_error("a second CONNECT")
        self.hello = packet
        properties = packet.properties
        if "Authentication-Method" in properties:
            words = "enhanced authentication is not supported here; connect without a method"
            self._refuse(Reason.BAD_AUTHENTICATION_METHOD, words)
            return
        if packet.version != MQTT_5 and not packet.client_id and not packet.clean_start:
            self._refuse(Reason.CLIENT_IDENTIFIER_NOT_VALID, "a session wants a client id")
            return
        if packet.will is not None and (fault := fault_in_name(packet.will.topic)):
            if packet.version != MQTT_5:
                raise malformed(f"a will's topic that {fault}")
            self._refuse(Reason.TOPIC_NAME_INVALID, f"the will's topic {fault}")
            return
        self.receive_maximum = _number(properties.get("Receive-Maximum"), 65535)
        self._max_packet = _number(properties.get("Maximum-Packet-Size"), self._max_packet)
        self.will = packet.will
        session, present, told = self._broker.connected(self, packet)
        self.session = session
        self._write(packets.connack(self.version, Reason.SUCCESS, present=present, properties=told))
        self._timer.cancel()
        if packet.keepalive:
            self._timer = self._loop.call_later(packet.keepalive * GRACE, self._check_alive)
        session.outbox.attach(self)

    def _refuse(self, reason: Reason, words: str) -> None:
        log.info("MQTT client at %s:%d refused: %s", *self.peer, words)
        told = {"Reason-String": words}
        self._write(packets.connack(self.version, reason, properties=told))
        self._close()

    def _publish(self, packet: PublishPacket) -> None:
        topic = self._topic(packet)
        fault = fault_in_name(topic)
        if fault is None and topic.count("/") >= MAX_LEVELS:
            fault = f"has more than {MAX_LEVELS} levels"
        if fault is not None:
            raise ProtocolFault(Reason.TOPIC_NAME_INVALID, f"a topic that {fault}")
        assert self.session is not None
        self._broker.count("messages.received")
        releases = self.session.awaiting_release
        reason = Reason.SUCCESS
        if packet.qos < 2 or packet.packet_id not in releases:
            if packet.qos == 2 and len(releases) >= MAX_RELEASES and self.version == MQTT_5:
                words = f"more than {MAX_RELEASES} messages of QoS 2 not released"
                raise ProtocolFault(Reason.RECEIVE_MAXIMUM_EXCEEDED, words)
            reason = self._broker.publish_from(self.message(packet, topic))
            if packet.qos == 2 and reason < 0x80:
                releases.add(packet.packet_id)
        if packet.qos:
            self.send_ack(Type.PUBACK if packet.qos == 1 else Type.PUBREC, packet.packet_id, reason)

    def message(self, packet: PublishPacket, topic: str, *, is_will: bool = False) -> Message:
        """As the rule engine sees it; a will has no peer, as in EMQX."""
        assert self.session is not None
        assert self.hello is not None
        return Message(
            topic=topic,
            payload=packet.payload,
            qos=packet.qos,
            retain=packet.retain,
            dup=packet.dup,
            clientid=self.session.client_id,
            username=self.hello.username,
            peername=None if is_will else self.peer,
            properties=pub_props(packet.properties),
            source=self.source,
        )

    def _topic(self, packet: PublishPacket) -> str:
        alias = packet.properties.get("Topic-Alias")
        if alias is None:
            return packet.topic
        assert isinstance(alias, int)
        if not 1 <= alias <= MAX_ALIASES:
            raise ProtocolFault(Reason.TOPIC_ALIAS_INVALID, f"a topic alias of {alias}")
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias not in self._aliases:
            raise protocol_error(f"topic alias {alias} stands for nothing")
        return self._aliases[alias]

    def _acknowledge(self, packet: AckPacket) -> None:
        assert self.session is not None
        if packet.type is Type.PUBREL:
            known = packet.packet_id in self.session.awaiting_release
            self.session.awaiting_release.discard(packet.packet_id)
            reason = Reason.SUCCESS if known else Reason.PACKET_IDENTIFIER_NOT_FOUND
            self.send_ack(Type.PUBCOMP, packet.packet_id, reason)
        elif not self.session.outbox.acknowledged(packet.type, packet.packet_id, packet.failed):
            self.send_ack(Type.PUBREL, packet.packet_id, Reason.PACKET_IDENTIFIER_NOT_FOUND)

    def _disconnect(self, packet: DisconnectPacket) -> None:
        assert self.session is not None
        if packet.session_expiry is not None:
            if packet.session_expiry and not self.session.expiry:
                raise protocol_error("a session that was to end now can't be kept")
            self.session.expiry = packet.session_expiry
        if packet.reason != Reason.DISCONNECT_WITH_WILL:
            self.will = None
        self._close()

    # time

    def _too_late(self) -> None:
        log.debug("nobody said CONNECT at %s:%d", *self.peer)
        self._close()

    def _check_alive(self) -> None:
        assert self.hello is not None
        left = self._heard + self.hello.keepalive * GRACE - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_alive)
        else:
            words = f"nothing heard for 1.5 times the keepalive of {self.hello.keepalive} s"
            self.end(Reason.KEEP_ALIVE_TIMEOUT, words)


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
