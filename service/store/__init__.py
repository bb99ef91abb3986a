"""The durable inbox, on SQLite or PostgreSQL. `Store` is the way in."""

from service.store.store import Store
from service.store.values import Added, Change, Claims, Memory, Row, Stats

__all__ = ["Added", "Change", "Claims", "Memory", "Row", "Stats", "Store"]
