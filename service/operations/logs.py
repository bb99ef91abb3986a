"""Log lines for an operator at 3 a.m.: one event a line, as text or JSON."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from service import safe_text

FIELDS = ("request", "flow", "state", "code", "seconds", "tokens", "cost", "trace_id")
"""What a line may carry beside its text (`extra`), for programs that read it."""
LONGEST = 4000  # characters of a line
LONGEST_TRACE = 20_000


class TextFormatter(logging.Formatter):
    """One line an event; what follows it (a trace) is indented, so none can be made up."""

    def format(self, record: logging.LogRecord) -> str:
        copy = logging.makeLogRecord(record.__dict__)
        copy.msg, copy.args = safe_text.line(record.getMessage(), LONGEST), ()
        copy.exc_text = None
        return super().format(copy)

    def formatException(self, ei: Any) -> str:
        return _trace(super().formatException(ei)).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and an error's trace."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": safe_text.line(record.getMessage(), LONGEST),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                fields[name] = safe_text.line(value) if isinstance(value, str) else value
        if record.exc_info:
            fields["trace"] = _trace(self.formatException(record.exc_info))
        return orjson.dumps(fields, default=str).decode()


def _trace(text: str) -> str:
    return safe_text.lines(text, LONGEST_TRACE)


def configure(level: str, form: str) -> None:
    """Send this program's log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("emqx-gpt").setLevel(level.upper())
