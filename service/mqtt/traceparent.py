"""W3C Trace Context in the user properties of a message. Pure.

`traceparent` is VERSION-TRACE-SPAN-FLAGS in lower-case hex; `tracestate` goes along unread. What
does not look so is no trace, and is neither kept nor handed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Properties = tuple[tuple[str, str], ...]

PARENT, STATE = "traceparent", "tracestate"
LONGEST = 512  # characters of a tracestate
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_STATE = re.compile(rf"[\t -~]{{1,{LONGEST}}}")


@dataclass(frozen=True, slots=True)
class Context:
    """A place in a trace: ids in hex. `flags` 01: its spans are recorded."""

    trace: str
    span: str
    flags: str = "00"
    state: str = ""

    def properties(self) -> Properties:
        """As a message carries it."""
        said = ((PARENT, f"00-{self.trace}-{self.span}-{self.flags}"),)
        return (*said, (STATE, self.state)) if self.state else said


def read(properties: Iterable[tuple[str, str]]) -> Context | None:
    """Where a message's trace came from; None without one."""
    parent = state = None
    for name, value in properties:
        if name == PARENT and parent is None:
            parent = value
        elif name == STATE and state is None:
            state = value
    if parent is None or len(parent) > LONGEST:
        return None
    found = _PARENT.fullmatch(parent)
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace.strip("0") or not span.strip("0"):
        return None
    if state is None or not _STATE.fullmatch(state):
        state = ""
    return Context(trace, span, f"{int(flags, 16) & 3:02x}", state)
