"""What a session has still to deliver: a bounded queue, and what waits for its client's word."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from service.demo.standin.mqtt_broker.packets import Type
from service.demo.standin.published import Message

log = logging.getLogger(__name__)

MAX_QUEUED = 1000  # messages, as EMQX's max_mqueue_len
MAX_QUEUED_BYTES = 32 * 1024 * 1024
MAX_INFLIGHT = 32  # as EMQX's max_inflight


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for one session. `retain` as its client shall see it."""

    message: Message
    qos: int
    retain: bool = False
    identifiers: tuple[int, ...] = ()


class Link(Protocol):
    """What a session needs of its client's connection."""

    receive_maximum: int

    @property
    def is_writable(self) -> bool:
        """False while the client reads too slowly."""

    def send_delivery(self, delivery: Delivery, packet_id: int, dup: bool) -> bool:
        """False when it can't be sent at all: expired, or too large for this client."""

    def send_ack(self, kind: Type, packet_id: int) -> None:
        """One of PUBREL's kin."""


class Outbox:
    """Sends in order, `MAX_INFLIGHT` unacknowledged at a time; sends again to one that returns."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._link: Link | None = None
        self._queue: deque[Delivery] = deque()
        self.queued_bytes = 0
        self._inflight: dict[int, Delivery | None] = {}  # None: PUBREC came, PUBREL is sent
        self._last_id = 0
        self.dropped = 0

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def inflight(self) -> int:
        return len(self._inflight)

    def attach(self, link: Link) -> None:
        """The client is here: what it had not acknowledged goes out first, again."""
        self._link = link
        for packet_id, delivery in list(self._inflight.items()):
            if delivery is None:
                link.send_ack(Type.PUBREL, packet_id)
            elif not link.send_delivery(delivery, packet_id, True):
                del self._inflight[packet_id]
        self.pump()

    def detach(self) -> None:
        self._link = None

    def put(self, delivery: Delivery) -> None:
        """Sends or queues; a full queue loses its oldest message."""
        link = self._link
        if link is None and not delivery.qos:
            return
        if link is not None and link.is_writable and not self._queue:
            if not delivery.qos:
                link.send_delivery(delivery, 0, False)
                return
            if self._has_room(link):
                self._send(link, delivery)
                return
        self._queue.append(delivery)
        self.queued_bytes += len(delivery.message.payload)
        while len(self._queue) > MAX_QUEUED or self.queued_bytes > MAX_QUEUED_BYTES:
            self._drop()

    def pump(self) -> None:
        """Sends what may go now."""
        link = self._link
        while link is not None and self._queue and link.is_writable:
            if self._queue[0].qos and not self._has_room(link):
                return
            self._send(link, self._pop())

    def acknowledged(self, kind: Type, packet_id: int, failed: bool) -> bool:
        """A PUBACK, PUBREC or PUBCOMP came; False for a PUBREC that nothing waits for."""
        if packet_id not in self._inflight:
            return kind is not Type.PUBREC
        delivery = self._inflight[packet_id]
        if kind is Type.PUBREC and not failed:
            if delivery is None or delivery.qos == 2:
                self._inflight[packet_id] = None
                if self._link is not None:
                    self._link.send_ack(Type.PUBREL, packet_id)
            return True
        if delivery is None or kind is not Type.PUBCOMP:
            del self._inflight[packet_id]
            self.pump()
        return True

    def left(self) -> list[Delivery]:
        """All that was not acknowledged, in order."""
        return [one for one in self._inflight.values() if one is not None] + list(self._queue)

    def _has_room(self, link: Link) -> bool:
        return len(self._inflight) < min(MAX_INFLIGHT, link.receive_maximum)

    def _send(self, link: Link, delivery: Delivery) -> None:
        packet_id = self._next_id() if delivery.qos else 0
        if link.send_delivery(delivery, packet_id, False) and delivery.qos:
            self._inflight[packet_id] = delivery

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 65535 + 1
            if self._last_id not in self._inflight:
                return self._last_id

    def _pop(self) -> Delivery:
        delivery = self._queue.popleft()
        self.queued_bytes -= len(delivery.message.payload)
        return delivery

    def _drop(self) -> None:
        lost = self._pop()
        self.dropped += 1
        level = logging.WARNING if self.dropped == 1 else logging.DEBUG
        log.log(
            level,
            "client %r takes too little; its oldest message %s is dropped",
            self._client_id,
            lost.message.id,
        )
