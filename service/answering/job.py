"""What the steps of answering one request share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.domain import Claimed
from service.flows import Flow
from service.llm.attempts import Log
from service.mqtt.templates import Scope


class LostLease(Exception):
    """Somebody else has this request now; nothing more is done here."""


@dataclass(slots=True)
class Job:
    """A claimed request, its flow, and what templates may read of it: the wake word is cut
    from it once the message is understood."""

    claimed: Claimed
    flow: Flow
    scope: Scope
    captured: Mapping[str, str]
    log: Log
