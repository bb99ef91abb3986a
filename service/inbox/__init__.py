"""The durable inbox, on SQLite or PostgreSQL. `Store` is the way in."""

from service.inbox.inbox import Store
from service.inbox.rows import Added, Change, Claims, Memory, Row, Stats

__all__ = ["Added", "Change", "Claims", "Memory", "Row", "Stats", "Store"]
