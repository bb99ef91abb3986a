"""The durable inbox, on SQLite or PostgreSQL. `Inbox` is the way in."""

from service.inbox.desk import Act, Job, Pause, Resume
from service.inbox.filters import Filter, Page
from service.inbox.held import HeldReply
from service.inbox.inbox import Inbox, epoch_ms
from service.inbox.readings import Chunk
from service.inbox.rollup import BUCKETS, Count
from service.inbox.rows import Added, Change, Claims, Memory, Row, Stats

__all__ = [
    "BUCKETS",
    "Act",
    "Added",
    "Change",
    "Chunk",
    "Claims",
    "Count",
    "Filter",
    "HeldReply",
    "Inbox",
    "Job",
    "Memory",
    "Page",
    "Pause",
    "Resume",
    "Row",
    "Stats",
    "epoch_ms",
]
