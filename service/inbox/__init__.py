"""The durable inbox, on SQLite or PostgreSQL. `Inbox` is the way in."""

from service.inbox.held import HeldReply
from service.inbox.inbox import Inbox, epoch_ms
from service.inbox.rows import Added, Change, Claims, Memory, Row, Stats

__all__ = [
    "Added",
    "Change",
    "Claims",
    "HeldReply",
    "Inbox",
    "Memory",
    "Row",
    "Stats",
    "epoch_ms",
]
