"""The durable inbox, on SQLite or PostgreSQL. `Inbox` is the way in."""

from service.inbox.acts import Act, BulkJob, Pause, Resume
from service.inbox.filters import Filter, Page
from service.inbox.held import HeldReply
from service.inbox.inbox import Inbox, epoch_ms
from service.inbox.readings import Chunk, window_keys
from service.inbox.rollup import BUCKETS, KEPT, Count
from service.inbox.rows import Added, BacklogStats, Change, Claims, Memory, Row
from service.inbox.unsettled_calls import Settle, unsettled
from service.inbox.waits import Close, Hear, Heard, Judge, Verdict, Word

__all__ = [
    "BUCKETS",
    "KEPT",
    "Act",
    "Added",
    "BacklogStats",
    "BulkJob",
    "Change",
    "Chunk",
    "Claims",
    "Close",
    "Count",
    "Filter",
    "Hear",
    "Heard",
    "HeldReply",
    "Inbox",
    "Judge",
    "Memory",
    "Page",
    "Pause",
    "Resume",
    "Row",
    "Settle",
    "Verdict",
    "Word",
    "epoch_ms",
    "unsettled",
    "window_keys",
]
