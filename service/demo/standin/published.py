"""A published message, as EMQX's rule engine sees it."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.rulesql import UNDEFINED

NODE = "emqx@127.0.0.1"
_NODE_ID = "F4430000"
_last_us = 0
_sequence = itertools.count()


def new_id() -> str:
    """32 hex digits, unique and sorting by time within this process."""
    global _last_us
    _last_us = max(_last_us + 1, time.time_ns() // 1000)
    return f"{_last_us:016X}{_NODE_ID}0CA5{next(_sequence) % 0x10000:04X}"


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def rfc3339(milliseconds: object) -> str:
    """A stamp as EMQX shows it."""
    assert isinstance(milliseconds, int)
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One publish. `source` names the connection it came over, `properties` is `pub_props`."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool | None = False  # None: there is no such flag, as over REST
    clientid: str = ""
    username: str | None = None
    peername: tuple[str, int] | None = None
    properties: Mapping[str, object] = field(default_factory=lambda: {"User-Property": {}})
    source: str = ""
    republished_by: str | None = None
    id: str = field(default_factory=new_id)
    received_at: int = field(default_factory=now_ms)

    def columns(self) -> dict[str, object]:
        """The columns of the event `message.publish`."""
        peer = self.peername
        return {
            "event": "message.publish",
            "id": self.id,
            "clientid": self.clientid,
            "username": UNDEFINED if self.username is None else self.username,
            "topic": self.topic,
            "payload": self.payload,
            "qos": self.qos,
            "flags": {"retain": self.retain} | ({} if self.dup is None else {"dup": self.dup}),
            "peerhost": UNDEFINED if peer is None else peer[0],
            "peername": UNDEFINED if peer is None else f"{peer[0]}:{peer[1]}",
            "pub_props": self.properties,
            "client_attrs": {},
            "publish_received_at": self.received_at,
            "timestamp": self.received_at,
            "node": NODE,
        }
