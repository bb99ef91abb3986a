"""What a run left behind: what went in, what is stored, what was asked, what came out."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.inbox import Row
from tests.chaos.broker import Published
from tests.chaos.plan import Plan
from tests.chaos.processes import Replica
from tests.chaos.traffic import Feed, Message
from tests.chaos.troubles import Troubles

ANSWER_LIMIT = 8.0  # seconds; promised are 5, and this machine is busy with other things
_RECORD = re.compile(r"^(?=\d{4}-\d\d-\d\d )", re.MULTILINE)
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_CALLER_GONE = "the handler is closed"  # uvloop's word for it, and no harm: it is sent again
UNUSABLE = 1  # exit code of a start that finds no database; a supervisor starts it again


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model; `history` is what it was shown before the question."""

    number: int
    at: float
    text: str
    outcome: str
    history: list[str]


@dataclass
class Evidence:
    """`faults` are violations that showed already while it ran."""

    plan: Plan
    messages: list[Message] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def note_troubles(self, troubles: Troubles) -> None:
        counts = troubles.counts
        self.figures |= {
            "kills survived (SIGKILL)": counts["kills"],
            "orderly restarts (SIGTERM)": counts["restarts"],
            "processes stopped longer than their lease (SIGSTOP)": counts["stops"],
            "webhook connections reset": counts["resets"],
            "broker away": f"{counts['outages']} times, {troubles.seconds['outages']} s",
            "clock jumps": counts["clock jumps"],
        }
        if self.plan.sqlite:
            seconds = troubles.seconds["disk full"]
            self.figures["disk full"] = f"{counts['disk full']} times, {seconds} s"
        else:
            self.figures["restarts of PostgreSQL"] = counts["restarts of PostgreSQL"]

    def note_feed(self, feed: Feed, stopped: Sequence[tuple[float, float]]) -> None:
        """Answers to webhooks; a process that stands still can't keep the time."""
        self.figures["webhook answers"] = dict(sorted(feed.answers.items()))
        self.figures["webhooks lost with their connection, sent again"] = feed.lost
        self.figures["given up inside EMQX, its connection closed under it"] = feed.gone
        offset = time.time() - time.monotonic()  # the loop's clock is the monotonic one
        still = [(began + offset, ended + offset) for began, ended in stopped]
        slowest = 0.0
        for took, at, port in feed.slowest:
            if any(at - took <= ended and at >= began for began, ended in still):
                continue
            slowest = max(slowest, took)
            if took > ANSWER_LIMIT:
                self.faults.append(f"a webhook was answered after {took:.1f} s (port {port})")
        self.figures["slowest webhook answer"] = f"{slowest:.1f} s" if slowest else "under 1 s"

    def note_processes(self, replicas: Sequence[Replica]) -> None:
        self.figures["starts of the service"] = sum(each.starts for each in replicas)
        ends = [code for replica in replicas for code in replica.exits]
        self.figures["starts while there was no database"] = ends.count(UNUSABLE)
        for replica in replicas:
            for code in replica.exits:
                if code != UNUSABLE:
                    self.faults.append(f"service {replica.number} ended by itself with {code}")

    def note_log(self, log: Path) -> None:
        """A traceback is a fault that nobody thought of."""
        ends: Counter[str] = Counter()
        for record in _RECORD.split(log.read_text("utf-8", "replace")):
            _, found, trace = record.rpartition("Traceback (most recent call last):\n")
            if found:
                error = next((line for line in trace.splitlines() if line[:1] != " "), "")
                ends[_ADDRESS.sub("", error)[:300]] += 1
        for end, count in ends.items():
            if _CALLER_GONE in end:
                name = "webhooks whose connection was reset while they were answered"
                self.figures[name] = self.figures.get(name, 0) + count // 2  # logged twice
            else:
                self.faults.append(f"{count} tracebacks in {log.name}: {end}")
