"""A client's messages on their way in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from amqtt.session import Session

from service.demo.standin.message import Message

log = logging.getLogger(__name__)


class Inbound(asyncio.Queue[Any]):
    """Stands where amqtt queues a client's messages, and passes them on at once.

    amqtt acknowledges a message as soon as it is in this queue, and forgets the queue when the
    client leaves. `source` names the connection.
    """

    def __init__(
        self,
        publish: Callable[[Message], object],
        session: Session,
        peer: tuple[str, int],
        source: str,
    ) -> None:
        super().__init__()
        self._publish = publish
        self._session = session
        self._peer = peer
        self._source = source

    async def put(self, item: Any) -> None:
        self.put_nowait(item)

    def put_nowait(self, item: Any) -> None:
        packet = item.publish_packet
        if not item.topic or "+" in item.topic or "#" in item.topic:
            log.warning("client %r publishes to a bad topic; ignored", self._session.client_id)
            return
        self._publish(
            Message(
                topic=item.topic,
                payload=bytes(item.data or b""),
                qos=item.qos,
                retain=bool(packet and packet.retain_flag),
                dup=bool(packet and packet.dup_flag),
                clientid=self._session.client_id,
                username=self._session.username,
                peername=self._peer,
                source=self._source,
            )
        )
