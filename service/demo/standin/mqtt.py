"""The MQTT side: amqtt as a broker whose every publish goes through the rule engine.

amqtt brings the protocol; what becomes of a message is decided here, because EMQX does it in
another order: rules first, then retained messages and subscribers, and all of that before the
publisher gets its acknowledgement, so nothing acknowledged is lost with a closing connection.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import BrokerError
from amqtt.session import ApplicationMessage, Session

from service.demo.standin.inbound import Inbound
from service.demo.standin.message import Message
from service.demo.standin.packets import Handshake, Replay, read_connect
from service.rulesql import matches

log = logging.getLogger(__name__)

MAX_QUEUED = 1000  # for a client that is away, as EMQX's max_mqueue_len
REMEMBERED = 1000
_SPOKEN = 4  # the protocol level of MQTT 3.1.1
# other levels: their name, and the CONNACK that refuses them
_REFUSALS = {3: ("3.1", bytes((0x20, 2, 0, 1))), 5: ("5", bytes((0x20, 3, 0, 0x84, 0)))}


class MqttBroker(Broker):  # type: ignore[misc]  # amqtt is not typed
    """MQTT 3.1.1 over TCP and WebSocket. `on_message` sees each message before anybody."""

    def __init__(
        self, host: str, mqtt_port: int, ws_port: int, on_message: Callable[[Message], None]
    ) -> None:
        listeners = {
            "default": ListenerConfig(ListenerType.TCP, f"{host}:{mqtt_port}"),
            "ws": ListenerConfig(ListenerType.WS, f"{host}:{ws_port}"),
        }
        for noisy in ("amqtt", "transitions", "websockets"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        super().__init__(BrokerConfig(listeners=listeners, plugins={}))
        self.retained: dict[str, Message] = {}
        self.published: deque[Message] = deque(maxlen=REMEMBERED)
        self._on_message = on_message
        self._deliveries: dict[asyncio.Task[Any], str] = {}
        self._pending: Counter[str] = Counter()
        self._connections: dict[asyncio.Task[Any], str] = {}
        self._numbers = itertools.count(1)
        self._born = time.monotonic()
        self._stopping = False
        self._named: deque[str] = deque(maxlen=100)

    def port(self, listener: str) -> int:
        """The port that a listener (`default` or `ws`) got."""
        return int(self._servers[listener].instance.sockets[0].getsockname()[1])

    @property
    def uptime_ms(self) -> int:
        return int((time.monotonic() - self._born) * 1000)

    @property
    def client_count(self) -> int:
        return sum(_is_connected(session) for session, _ in self._sessions.values())

    def publish(self, message: Message) -> int:
        """Runs the rules, retains, delivers; the number of sessions it went or will go to."""
        self.published.append(message)
        self._on_message(message)
        if message.retain:
            if message.payload:
                self.retained[message.topic] = message
            else:
                self.retained.pop(message.topic, None)
        reached = 0
        for topic_filter, subscribers in list(self._subscriptions.items()):
            if matches(topic_filter, message.topic):
                for session, qos in subscribers:
                    reached += self._pass_on(session, message, min(qos, message.qos))
        return reached

    async def start(self) -> None:
        """Raises OSError that names the port when one is taken."""
        try:
            await super().start()
        except BrokerError as exc:
            for server in self._servers.values():
                await server.close_instance()
            if isinstance(exc.__cause__, OSError):
                raise exc.__cause__ from None
            raise

    async def shutdown(self) -> None:
        """Closes the listeners, then every connection, and waits for all of it."""
        self._stopping = True
        for server in self._servers.values():
            server.instance.close()
        for task in (*self._deliveries, *self._connections):
            task.cancel()
        await asyncio.gather(*self._deliveries, *self._connections, return_exceptions=True)
        await super().shutdown()

    # delivery

    def _pass_on(self, session: Session, message: Message, qos: int) -> int:
        if not _is_connected(session):
            if session.clean_session:
                return 0
            if qos and session.retained_messages.qsize() < MAX_QUEUED:
                session.retained_messages.put_nowait(
                    ApplicationMessage(None, message.topic, qos, message.payload, False)
                )
            return 1
        self._send(session, message, qos, retain=False)
        return 1

    def _send(self, session: Session, message: Message, qos: int, *, retain: bool) -> None:
        handler = self._get_handler(session)
        if handler is None:
            return
        if self._pending[session.client_id] >= MAX_QUEUED:
            log.warning("client %r is too slow; message %s dropped", session.client_id, message.id)
            return
        delivery = handler.mqtt_publish(message.topic, message.payload, qos, retain=retain)
        task = asyncio.create_task(delivery)
        self._deliveries[task] = session.client_id
        self._pending[session.client_id] += 1
        task.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[Any]) -> None:
        client_id = self._deliveries.pop(task)
        self._pending[client_id] -= 1
        if not self._pending[client_id]:
            del self._pending[client_id]
        if not self._stopping and not task.cancelled() and task.exception() is not None:
            kind = type(task.exception()).__name__
            log.warning("client %r did not take a message (%s)", client_id, kind)

    # amqtt's hooks

    async def _create_server_instance(
        self, listener_name: str, listener_type: Any, address: Any, port: int, ssl_context: Any
    ) -> Any:
        try:
            return await super()._create_server_instance(
                listener_name, listener_type, address, port, ssl_context
            )
        except OSError as exc:
            raise port_error(exc, port, f"MQTT, {listener_type.value}") from None

    async def _authenticate(self, session: Session, _: ListenerConfig) -> bool:
        return True  # a demo on loopback: everybody may

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:  # amqtt forgets to close where the other side was gone before
            if self._stopping:
                writer.transport.abort()
            else:
                writer.close()

    async def _client_connected(
        self, listener_name: str, reader: ReaderAdapter, writer: WriterAdapter
    ) -> None:
        if self._stopping:  # accepted at the last moment
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = ""
        try:
            hello = await read_connect(reader)
            if hello is None:
                return
            if hello.level != _SPOKEN:
                await self._refuse(hello, writer)
                return
            await self._close_namesake(hello.client_id)
            self._connections[task] = hello.client_id
            await super()._client_connected(listener_name, Replay(hello.read, reader), writer)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        except Exception as exc:  # one client's mishap must not reach the loop's handler
            log.debug("an MQTT connection ended: %s", type(exc).__name__)
        finally:
            del self._connections[task]
            await _close(writer)

    async def _refuse(self, hello: Handshake, writer: WriterAdapter) -> None:
        version, refusal = _REFUSALS.get(hello.level, (f"level {hello.level}", b""))
        host, port = writer.get_peer_info() or ("?", 0)
        known = hello.client_id in self._named  # such clients come again every few seconds
        log.log(
            logging.DEBUG if known else logging.WARNING,
            "MQTT client %r at %s:%s speaks MQTT %s, which this stand-in does not: "
            "choose MQTT 3.1.1 (mosquitto: -V mqttv311)",
            hello.client_id,
            host,
            port,
            version,
        )
        self._named.append(hello.client_id)
        writer.write(refusal)
        await writer.drain()

    async def _close_namesake(self, client_id: str) -> None:
        """A second client of the same name takes over; amqtt would keep both."""
        session, handler = self._sessions.get(client_id, (None, None))
        if client_id and handler is not None and _is_connected(session):
            former = [task for task, name in self._connections.items() if name == client_id]
            await handler.handle_connection_closed()
            await handler.stop()
            if former:
                await asyncio.wait(former, timeout=2)

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[Any, Session]:
        handler, session = await super()._initialize_client_session(
            reader, writer, remote_address, remote_port
        )
        peer = (remote_address, remote_port)
        session.delivered_message_queue = Inbound(
            self.publish, session, peer, f"mqtt-{next(self._numbers)}"
        )
        return handler, session

    async def _broadcast_message(
        self, session: Session | None, topic: Any, data: Any, force_qos: int | None = None
    ) -> None:
        """What amqtt publishes itself: last wills."""
        peer = (session.remote_address, session.remote_port) if session else None
        self.publish(
            Message(
                topic=topic,
                payload=bytes(data or b""),
                qos=force_qos or 0,
                retain=bool(session and session.will_retain),
                clientid=session.client_id if session else "",
                username=session.username if session else None,
                peername=peer,
                source=f"will-{next(self._numbers)}",
            )
        )

    async def retain_message(self, *_: Any, **__: Any) -> None:
        """`publish` has done it."""

    async def _handle_subscription(self, session: Session, handler: Any, waiter: Any) -> None:
        subscription = waiter.result()
        codes = [await self.add_subscription(topic, session) for topic in subscription.topics]
        await handler.mqtt_acknowledge_subscription(subscription.packet_id, codes)
        for (topic_filter, _), qos in zip(subscription.topics, codes, strict=True):
            if qos <= 2:
                for message in list(self.retained.values()):
                    if matches(topic_filter, message.topic):
                        self._send(session, message, min(qos, message.qos), retain=True)

    async def _publish_retained_messages_for_subscription(self, *_: Any) -> None:
        """amqtt would send retained messages of everybody's subscriptions to a new client."""


def port_error(exc: OSError, port: int, use: str) -> OSError:
    """The same error, with the port named."""
    taken = exc.errno == errno.EADDRINUSE
    why = "is taken" if taken else f"can't be used: {exc.strerror}"
    return OSError(exc.errno, f"port {port} {why} ({use})")


def _is_connected(session: Session | None) -> bool:
    return session is not None and session.transitions.state == "connected"


async def _close(writer: WriterAdapter) -> None:
    try:
        async with asyncio.timeout(1):
            await writer.close()
    except Exception as exc:  # already closed by the other side, in one of many ways
        log.debug("closing an MQTT connection: %s", type(exc).__name__)
