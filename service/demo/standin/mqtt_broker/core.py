"""The broker itself: sessions, retained messages, wills, and each message's way through."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from service.demo.standin.mqtt_broker.client_connection import MAX_ALIASES, Connection, Socket
from service.demo.standin.mqtt_broker.listeners import Listener
from service.demo.standin.mqtt_broker.outbox import MAX_INFLIGHT, Delivery
from service.demo.standin.mqtt_broker.packets import MQTT_5, ConnectPacket, SubscribePacket
from service.demo.standin.mqtt_broker.properties import EXPIRED, seconds_left
from service.demo.standin.mqtt_broker.reason_codes import Reason, protocol_error
from service.demo.standin.mqtt_broker.router import Router, Subscription, parse_filter
from service.demo.standin.mqtt_broker.session import NEVER, PERSISTENT_311, Session
from service.demo.standin.mqtt_broker.sys_topics import SysTopics
from service.demo.standin.mqtt_broker.wire import MAX_PACKET_SIZE
from service.demo.standin.published import Message, now_ms
from service.mqtt.topics import matches

REMEMBERED = 1000
_LONGEST_TIMER = 86400 * 365


class MqttBroker:
    """MQTT 3.1.1 and 5 over TCP and WebSocket. `on_message` sees each message before anybody.

    Everything happens in the event loop's thread and without waiting: when a publisher has its
    acknowledgement, rules have run and subscribers' sessions have the message.
    """

    def __init__(
        self,
        host: str,
        mqtt_port: int,
        ws_port: int,
        on_message: Callable[[Message], None],
        version: str = "5.8.9",
    ) -> None:
        self.version = version
        self._listeners = {
            "default": Listener(self, host, mqtt_port, websocket=False),
            "ws": Listener(self, host, ws_port, websocket=True),
        }
        self._on_message = on_message
        self._router = Router()
        self._numbers = itertools.count(1)
        self._born = time.monotonic()
        self._sys = SysTopics(self)
        self._later: set[asyncio.TimerHandle] = set()
        self.retained: dict[str, Message] = {}
        self.published: deque[Message] = deque(maxlen=REMEMBERED)
        self.sessions: dict[str, Session] = {}
        self.counters: Counter[str] = Counter()
        self.is_stopping = False

    # for the rest of the stand-in

    def port(self, listener: str) -> int:
        """The port that a listener (`default` or `ws`) got."""
        return self._listeners[listener].port

    @property
    def uptime_ms(self) -> int:
        return int((time.monotonic() - self._born) * 1000)

    @property
    def client_count(self) -> int:
        return sum(session.link is not None for session in self.sessions.values())

    @property
    def connection_count(self) -> int:
        """Sockets, whether their clients have said CONNECT or not."""
        return sum(len(listener.sockets) for listener in self._listeners.values())

    @property
    def subscription_count(self) -> int:
        return sum(len(session.subscriptions) for session in self.sessions.values())

    def count(self, name: str) -> None:
        self.counters[name] += 1

    async def start(self) -> None:
        """Raises OSError that names the port when one is taken."""
        try:
            for listener in self._listeners.values():
                await listener.start()
        except OSError:
            await self.shutdown()
            raise
        self._sys.start()

    async def shutdown(self) -> None:
        """Closes the listeners and every connection; sessions and wills go with them."""
        self.is_stopping = True
        self._sys.stop()
        for session in self.sessions.values():
            session.stop_timers()
        for timer in self._later:
            timer.cancel()
        await asyncio.gather(*(listener.stop() for listener in self._listeners.values()))

    def publish(self, message: Message) -> int:
        """Runs the rules, retains, delivers; the number of sessions it went or will go to."""
        if message.topic.startswith("$delayed/") and (due := _delayed(message)) is not None:
            self._call_later(due[0], lambda: self.publish(due[1]))
            return 0
        self.published.append(message)
        self._on_message(message)
        if message.retain:
            if message.payload:
                self.retained[message.topic] = message
            else:
                self.retained.pop(message.topic, None)
        return self.dispatch(message)

    def find_retained(self, topic: str) -> Message | None:
        """The first that this topic or topic filter matches."""
        now = now_ms()
        return next(
            (
                message
                for name, message in self.retained.items()
                if matches(topic, name) and seconds_left(message, now) != EXPIRED
            ),
            None,
        )

    def dispatch(self, message: Message) -> int:
        """To subscribers alone."""
        found = _each_once(list(self._router.matching(message.topic)))
        reached = len(found)
        for subscription in found:
            subscription.session.take(subscription, message)
        self.count("messages.delivered" if reached else "messages.dropped")
        return reached

    # for listeners and connections

    def accept(self, socket: Socket) -> Connection:
        return Connection(self, socket, next(self._numbers))

    def publish_from(self, message: Message) -> Reason:
        """A client's message. What it gets to hear in its acknowledgement."""
        if message.topic.startswith("$SYS/"):
            return Reason.NOT_AUTHORIZED
        reached = self.publish(message)
        return Reason.SUCCESS if reached else Reason.NO_MATCHING_SUBSCRIBERS

    def connected(
        self, link: Connection, packet: ConnectPacket
    ) -> tuple[Session, bool, dict[str, object]]:
        """The client's session, whether it was there, and CONNACK's properties."""
        client_id = packet.client_id or f"auto-{secrets.token_hex(8)}"
        told: dict[str, object] = {
            "Receive-Maximum": MAX_INFLIGHT,
            "Maximum-Packet-Size": MAX_PACKET_SIZE,
            "Topic-Alias-Maximum": MAX_ALIASES,
            "Retain-Available": 1,
            "Wildcard-Subscription-Available": 1,
            "Subscription-Identifier-Available": 1,
            "Shared-Subscription-Available": 1,
        }
        if not packet.client_id:
            told["Assigned-Client-Identifier"] = client_id
        old = self.sessions.get(client_id)
        if old is not None and old.link is not None:
            old.link.end(Reason.SESSION_TAKEN_OVER, "another client came with this client id")
            old = self.sessions.get(client_id)
        if old is not None and packet.clean_start:
            self.discard(old)
            old = None
        session = old or Session(client_id, 0, packet.version)
        session.stop_timers()
        session.will = None
        session.expiry = _expiry(packet)
        session.version = packet.version
        session.link = session.last_link = link
        session.connected_at = now_ms()
        self.sessions[client_id] = session
        self._sys.connected(link, session)
        return session, old is not None, told

    def left(self, link: Connection) -> None:
        """A connection is over; without a DISCONNECT its will goes out, now or later."""
        session = link.session
        if session is None or session.link is not link or self.is_stopping:
            return
        session.link = None
        session.outbox.detach()
        session.disconnected_at = now_ms()
        self._sys.disconnected(session)
        if (will := link.will) is not None:
            session.will = link.message(will, will.topic, is_will=True)
            delay = will.properties.get("Will-Delay-Interval", 0)
            assert isinstance(delay, int)
            if not delay or not session.expiry:
                self._publish_will(session)
            else:
                self._at(session, delay, lambda: self._publish_will(session))
        if not session.expiry:
            self.discard(session)
        elif session.expiry != NEVER:
            self._at(session, session.expiry, lambda: self.discard(session))

    def subscribe(
        self, session: Session, packet: SubscribePacket
    ) -> tuple[list[int], list[Delivery]]:
        """The codes, and retained messages to send after them. Raises ProtocolFault."""
        asked = [(text, *parse_filter(text), options) for text, options in packet.filters]
        retained: list[Delivery] = []
        for text, group, topic_filter, options in asked:
            if group is not None and options.no_local:
                raise protocol_error("No Local on a shared subscription")
            is_new = text not in session.subscriptions
            found = Subscription(session, topic_filter, group, options, packet.identifier)
            session.subscriptions[text] = found
            self._router.add(found)
            wanted = options.retain_handling == 0 or (options.retain_handling == 1 and is_new)
            if group is None and wanted:
                retained += self._retained_for(found)
        return [options.qos for *_, options in asked], retained

    def unsubscribe(self, session: Session, filters: Iterable[str]) -> list[int]:
        codes: list[int] = []
        for text in filters:
            found = session.subscriptions.pop(text, None)
            if found is not None:
                self._router.remove(found)
            codes.append(Reason.NO_SUBSCRIPTION_EXISTED if found is None else Reason.SUCCESS)
        return codes

    # inside

    def _retained_for(self, subscription: Subscription) -> Iterable[Delivery]:
        now = now_ms()
        one = self.retained.get(subscription.filter)
        wild = "+" in subscription.filter or "#" in subscription.filter
        kept = list(self.retained.values()) if wild else [one] if one is not None else []
        identifier = subscription.identifier
        for message in (*kept, *self._sys.current()):
            if matches(subscription.filter, message.topic):
                if seconds_left(message, now) == EXPIRED:
                    self.retained.pop(message.topic, None)
                    continue
                yield Delivery(
                    message,
                    min(subscription.options.qos, message.qos),
                    True,
                    () if identifier is None else (identifier,),
                )

    def _publish_will(self, session: Session) -> None:
        will, session.will = session.will, None
        if will is not None:
            self.publish_from(will)

    def discard(self, session: Session) -> None:
        """The session ends; a will still waiting for its delay goes out with it."""
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        session.stop_timers()
        self.unsubscribe(session, list(session.subscriptions))
        self._publish_will(session)

    def _at(self, session: Session, seconds: int, what: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        session.timers.append(loop.call_later(min(seconds, _LONGEST_TIMER), what))

    def _call_later(self, seconds: float, what: Callable[[], object]) -> None:
        def run() -> None:
            self._later.discard(timer)
            what()

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._later.add(timer)


def _each_once(found: list[Subscription]) -> list[Subscription]:
    """A 3.1.1 client gets one copy by the best of its matching subscriptions, others one each."""
    if len(found) < 2:
        return found
    kept: dict[object, Subscription] = {}
    for one in found:
        old = one.session.version != MQTT_5 and one.group is None
        key = one.session.client_id if old else id(one)
        if (other := kept.get(key)) is None or other.options.qos < one.options.qos:
            kept[key] = one
    return list(kept.values())


def _expiry(packet: ConnectPacket) -> int:
    if packet.version != MQTT_5:
        return 0 if packet.clean_start else PERSISTENT_311
    found = packet.properties.get("Session-Expiry-Interval", 0)
    assert isinstance(found, int)
    return found


def _delayed(message: Message) -> tuple[float, Message] | None:
    """EMQX's `$delayed/SECONDS/TOPIC`: when, and what then; None for any other topic."""
    _, seconds, topic = [*message.topic.split("/", 2), ""][:3]
    if not seconds.isdigit() or len(seconds) > 7 or not topic:
        return None
    return float(seconds), replace(message, topic=topic)
