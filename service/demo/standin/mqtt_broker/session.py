"""One client's session: what the broker remembers of it, connected or not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.demo.standin.mqtt_broker.outbox import Delivery, Outbox
from service.demo.standin.mqtt_broker.router import Subscription
from service.demo.standin.published import Message, now_ms

if TYPE_CHECKING:
    from service.demo.standin.mqtt_broker.client_connection import Connection

NEVER = 0xFFFFFFFF  # a session expiry that means: never
PERSISTENT_311 = 7200  # seconds: EMQX's session_expiry_interval for 3.1.1


@dataclass(eq=False)
class Session:
    """`expiry` in seconds after its connection ended; `link` is that connection while it lives.

    `awaiting_release` are the packet identifiers of QoS 2 messages that came and were published.
    """

    client_id: str
    expiry: int
    version: int
    created_at: int = field(default_factory=now_ms)
    connected_at: int = 0
    disconnected_at: int = 0
    link: Connection | None = None
    last_link: Connection | None = None
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    awaiting_release: set[int] = field(default_factory=set)
    will: Message | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.client_id)

    def take(self, subscription: Subscription, message: Message) -> None:
        """Delivers or queues a message of one of its subscriptions."""
        options = subscription.options
        if options.no_local and message.clientid == self.client_id:
            return
        identifier = subscription.identifier
        self.outbox.put(
            Delivery(
                message,
                min(options.qos, message.qos),
                message.retain and options.retain_as_published,
                () if identifier is None else (identifier,),
            )
        )

    def stop_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
