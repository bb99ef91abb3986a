"""The durable inbox, on SQLite or PostgreSQL. `Store` is the way in."""

from service.inbox.store import Store
from service.inbox.values import Added, Change, Claims, Memory, Row, Stats

__all__ = ["Added", "Change", "Claims", "Memory", "Row", "Stats", "Store"]
