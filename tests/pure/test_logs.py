"""Log lines as JSON: a text for people, fields for programs."""

import json
import logging

from service.operations.logs import JsonFormatter


def line(extra: dict[str, object]) -> dict[str, object]:
    logger = logging.getLogger("emqx-gpt.test")
    record = logger.makeRecord(
        "emqx-gpt.test", logging.INFO, "", 0, "request %s done", ("r1",), None, extra=extra
    )
    return dict(json.loads(JsonFormatter().format(record)))


def test_fields_stand_beside_the_text() -> None:
    fields = {"request": "r1", "flow": "chat", "state": "done", "code": None, "seconds": 0.5}
    fields |= {"tokens": 120, "cost": 0.0003, "trace_id": "0af7"}
    found = line(fields)
    assert found.pop("time")
    assert found == {
        "level": "info",
        "logger": "emqx-gpt.test",
        "message": "request r1 done",
        "request": "r1",
        "flow": "chat",
        "state": "done",
        "seconds": 0.5,
        "tokens": 120,
        "cost": 0.0003,
        "trace_id": "0af7",
    }


def test_a_line_about_no_request_has_no_fields() -> None:
    assert set(line({})) == {"time", "level", "logger", "message"}
