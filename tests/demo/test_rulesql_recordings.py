"""What a real EMQX 5.8.9 answered to POST /rule_test, replayed against rulesql."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.rulesql import RuleException, SqlError, parse, to_json

RECORDED = json.loads(
    (Path(__file__).parents[1] / "recordings" / "rule-test.json").read_text("utf-8")
)
EVERYTHING = next(one["answer"] for one in RECORDED["tests"] if one["title"] == "SELECT *")
STAMPS = ("id", "timestamp", "publish_received_at", "metadata", "node", "event_type")
# Known, and left out: FOREACH, and functions that nobody needs in a condition.
OUTSIDE = ("FOREACH", "jq(", "sprintf(", "format_date(", "term_encode(", "proc_dict", "kv_store")
OUTSIDE += ("subbits(",)
# Of the REST call, not of SQL.
NO_SQL = ("context no event type", "context payload object", "context empty")
CASES = [one for one in RECORDED["tests"] if one["title"] not in NO_SQL]


def answered(sql: str, context: dict[str, Any]) -> tuple[int, Any]:
    """What EMQX would answer: status, and output or message."""
    try:
        rule = parse(sql)
    except SqlError as error:
        return 400, error.emqx
    columns = {key: value for key, value in EVERYTHING.items() if key != "event_type"} | context
    if columns["event_type"] != "message_publish" or not rule.matches(columns["topic"]):
        return 412, None
    try:
        output = rule.run({key: value for key, value in columns.items() if key != "event_type"})
    except RuleException as error:
        return 400, str(error)
    return (412, None) if output is None else (200, json.loads(to_json(output)))


def steady(answer: Any) -> Any:
    if not isinstance(answer, dict):
        return answer
    return {key: value for key, value in answer.items() if key not in STAMPS}


@pytest.mark.parametrize("case", CASES, ids=[one["title"] for one in CASES])
def test_a_recorded_answer(case: dict[str, Any]) -> None:
    status, answer = answered(case["sql"], case.get("context", RECORDED["context"]))
    if any(word in case["sql"] for word in OUTSIDE):
        assert status == 400
        return
    expected = case.get("answer")
    expected = EVERYTHING if expected == "as SELECT *" else expected
    assert (status, steady(answer)) == (case["status"], steady(expected))
    if isinstance(answer, dict) and "x" in answer:
        assert type(answer["x"]) is type(expected["x"])  # 2 is not 2.0
