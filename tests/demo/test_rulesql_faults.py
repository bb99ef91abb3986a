"""Rule SQL that is refused, conditions that deserve a warning, and what must never escape."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rulesql import (
    RuleException,
    SqlError,
    parse,
    parse_where,
    payload_paths_without_guard,
    text,
    to_json,
)


@pytest.mark.parametrize(
    ("sql", "line", "column", "part"),
    [
        ("SELEC x", 1, 1, 'syntax error before "SELEC"'),
        ("", 1, 1, "syntax error before the end"),
        ("SELECT id\nFROM 5", 2, 6, "double quotes"),
        ('SELECT id FROM "t" WHERE', 1, 25, "syntax error before the end"),
        ('SELECT id FROM "t" WHERE a ~ 1', 1, 28, "'~'"),
        ('SELECT \'open FROM "t"', 1, 8, "not closed"),
        ('SELECT lower(a b) FROM "t"', 1, 16, 'before "b"'),
        ('SELECT payload.end FROM "t"', 1, 16, "write 'end' in single quotes"),
        ('SELECT id FROM "t" WHERE a = 4e1', 1, 31, 'before "e1"'),
        ('SELECT id FROM "t" WHERE a = 1;', 1, 31, "leave the semicolon out"),
        ('SELECT payload.`a` FROM "t"', 1, 16, "payload.'my key'"),
        ('SELECT id FROM "t" WHERE CASE WHEN a = 1 THEN b END = 2', 1, 26, "in SELECT and"),
        ('FOREACH payload FROM "t"', 1, 1, "FOREACH"),
        ('SELECT id FROM "t" WHERE a in 1', 1, 31, "expected ("),
        ('SELECT case a when 1 then 2 end FROM "t"', 1, 13, "CASE WHEN"),
        ('SELECT a.- FROM "t"', 1, 10, "a name"),
        ('SELECT a[x] FROM "t"', 1, 10, "counted from 1"),
        ('SELECT id FROM "t" x', 1, 20, 'before "x"'),
        ("SELECT " + "(" * 20_000 + '1 FROM "t"', 1, 1, "nested too deeply"),
    ],
)
def test_faults_have_a_place(sql: str, line: int, column: int, part: str) -> None:
    with pytest.raises(SqlError) as caught:
        parse(sql)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert part in str(caught.value)


def test_a_syntax_error_in_emqxs_own_words() -> None:
    with pytest.raises(SqlError) as caught:
        parse("SELEC x")
    assert caught.value.emqx == '5: syntax error before: "SELEC"'


def test_a_function_is_looked_for_when_the_rule_runs() -> None:
    for called, said in (
        ("nosuch(qos)", "sql_function_not_supported"),
        ("Is_Num(qos)", "sql_function_not_supported"),
        ("lower()", "outside the subset"),
        ("jq('.', payload)", "outside the subset"),
    ):
        rule = parse(f'SELECT qos FROM "#" WHERE {called} = 1')
        with pytest.raises(RuleException, match=said):
            rule.run({"qos": 1, "payload": "{}"})


@pytest.mark.parametrize(
    "condition",
    [
        "payload.flag",
        "qos",
        "1",
        "'true'",
        "null",
        "payload.flag and qos = 1",
        "qos + 1",
        "not (qos = 1 and qos = 1)",
        "not (qos in (1, 2))",
        "lower('a')",
    ],
)
def test_what_is_no_condition_ends_in_an_exception(condition: str) -> None:
    rule = parse(f'SELECT qos FROM "#" WHERE {condition}')
    with pytest.raises(RuleException, match="match_conditions_error"):
        rule.run({"qos": 1, "payload": '{"flag": true}'})


_PIECES = (
    "SELECT payload.a[1] * ( ) , . 'x' \"t\" FROM WHERE and or not = > 1 2.5 case when then else"
    " end is_num( lower( as - true qos topic base64_encode(payload)"
)


@given(st.lists(st.sampled_from(_PIECES.split()), max_size=25).map(" ".join) | st.text())
def test_any_text_is_parsed_or_refused_with_a_place(sql: str) -> None:
    for what in (parse, parse_where):
        fault: SqlError | None = None
        try:
            what(sql)
        except SqlError as exc:
            fault = exc
        assert fault is None or (fault.line >= 1 and fault.column >= 1)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


_ANY = parse(
    'SELECT *, payload.t AS t, lower(payload.t) AS l FROM "#" '
    "WHERE payload.t > 40 or payload.t = payload.u and payload.t < 'x'"
)


@given(_JSON.map(lambda t: json.dumps({"t": t, "u": t}).encode()) | st.binary())
def test_any_payload_passes_or_raises_a_rule_exception(payload: bytes) -> None:
    try:
        output = _ANY.run({"payload": payload, "topic": "t", "qos": 1})
    except RuleException:
        return
    if output is not None:
        json.loads(to_json(output))


@pytest.mark.parametrize(
    ("condition", "unguarded"),
    [
        ("payload.temperature > 40", ["payload.temperature"]),
        ("40 < payload.temperature", ["payload.temperature"]),
        ("is_num(payload.temperature) and payload.temperature > 40", []),
        ("is_int(payload.a) and (payload.a > 1 or payload.a < -1)", []),
        # too late: the comparison has raised already
        ("payload.temperature > 40 and is_num(payload.temperature)", ["payload.temperature"]),
        ("is_num(payload.a) or payload.a > 1", ["payload.a"]),
        ("not is_num(payload.a) or payload.a > 1", []),
        ("is_num(payload.a) and payload.b > 1", ["payload.b"]),
        ("payload.a > 1 and payload.a < 5 and payload.b.c >= 2", ["payload.a", "payload.b.c"]),
        ("payload.a = 'x' and qos > 1", []),
        ("payload.a + 1 > 2", ["payload.a"]),
        ("contains(CASE WHEN is_num(payload.a) THEN payload.a > 1 END, [true])", []),
        ("contains(CASE WHEN qos = 1 THEN payload.a > 1 END, [true])", ["payload.a"]),
        ("payload.'my key' > 1", ["payload.'my key'"]),
    ],
)
def test_comparisons_without_a_guard(condition: str, unguarded: list[str]) -> None:
    assert payload_paths_without_guard(parse_where(condition)) == unguarded


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\x80\x80\x80", "\ufffd"),  # a broken byte takes its continuation bytes with it
        (b"\xe2\x82A", "\ufffdA"),
        (b"\xed\xa0\x80", "\ufffd"),
        ("è".encode(), "è"),
    ],
)
def test_lost_bytes(raw: bytes, expected: str) -> None:
    assert text(raw) == expected
