"""The subset of EMQX's rule SQL, as tables. What a real 5.8.9 did is in FACTS-derived rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rulesql import (
    UNDEFINED,
    RuleException,
    SqlError,
    matches,
    parse,
    parse_where,
    payload_paths_without_guard,
    text,
    to_json,
)

EVENT = {
    "id": "000660B1DDA66C3AF44300000CA50002",
    "clientid": "dev1",
    "username": UNDEFINED,
    "topic": "sensors/a/telemetry",
    "payload": (
        b'{"temperature": 41, "list": [5, {"x": "y"}], "name": "Anna", "on": true, "no": null}'
    ),
    "qos": 1,
    "flags": {"retain": False, "dup": False},
    "pub_props": {"User-Property": {"lang": "zh"}, "Correlation-Data": b"\x00\xff"},
    "publish_received_at": 1795166904413,
    "peerhost": UNDEFINED,
}


def value(expression: str, **columns: object) -> object:
    rule = parse(f'SELECT {expression} AS it FROM "#"')
    output = rule.run({**EVENT, **columns})
    assert output is not None
    return output["it"]


def where(condition: str, payload: bytes) -> bool:
    rule = parse(f'SELECT id FROM "#" WHERE {condition}')
    return rule.run({**EVENT, "payload": payload}) is not None


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'chat'", "chat"),
        (r"'a\b'", r"a\b"),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / 2", 3.5),
        ("-7 div 2", -3),
        ("-7 mod 2", -1),
        ("- 2 - -3", 1),
        ("1.5e1", 15.0),
        ("'a' + 'b'", b"ab"),
        ("topic", "sensors/a/telemetry"),
        ("flags.retain", False),
        ("payload.temperature", 41),
        ("payload.list[1]", 5),
        ("payload.list[2].x", "y"),
        ("payload.list[3]", UNDEFINED),
        ("payload.name.deeper", UNDEFINED),
        ("payload.no", None),
        ("pub_props.'Correlation-Data'", b"\x00\xff"),
        ("pub_props.'User-Property'.lang", "zh"),
        ("nothing", UNDEFINED),
        ("nothing.at.all", UNDEFINED),
        ("true", True),
        ("CASE WHEN qos = 1 THEN 'one' ELSE 'other' END", "one"),
        ("case when qos = 2 then 'two' when qos = 1 then 'one' end", "one"),
        ("CASE WHEN qos = 2 THEN 'two' END", UNDEFINED),
        ("CASE WHEN nothing THEN 1 ELSE 2 END", 2),
        ("qos = 1", True),
        ("not (qos = 1)", False),
        ("not nothing", False),
        ("is_null(username)", True),
        ("is_null(payload.no)", True),
        ("is_not_null(payload.temperature)", True),
        ("is_num(payload.on)", False),
        ("is_int(payload.temperature)", True),
        ("is_float(payload.temperature)", False),
        ("is_float(1.0)", True),
        ("is_str(payload)", True),
        ("is_bool(payload.on)", True),
        ("is_map(pub_props)", True),
        ("is_array(payload.list)", True),
        ("base64_encode(pub_props.'Correlation-Data')", "AP8="),
        ("base64_decode('AP8=')", b"\x00\xff"),
        ("json_decode('[1,2]')", [1, 2]),
        ("json_encode(json_decode('{\"a\":[1]}'))", '{"a":[1]}'),
        ("lower('ÄB')", "äb"),
        ("upper('ab')", "AB"),
        ("trim('  a ')", "a"),
        ("strlen('äb')", 2),
        ("concat('a', payload.name)", b"aAnna"),
        ("regex_match(topic, '^sensors/')", True),
        ("find('abc', 'b')", "bc"),
        ("find('abc', 'x')", ""),
        ("contains(5, payload.list)", True),
        ("contains(true, payload.list)", False),
        ("abs(-3)", 3),
        ("nth(2, tokens(topic, '/'))", "a"),
        ("split('a//b', '/')", ["a", "b"]),
        ("tokens('a/b;c', '/;')", ["a", "b", "c"]),
    ],
)
def test_expressions(expression: str, expected: object) -> None:
    found = value(expression)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "base64_encode(nothing)",  # recorded: bad_sql_function_argument: undefined
        "base64_decode('no base64!')",
        "json_decode('{')",
        "lower(1)",
        "abs('1')",
        "1 + 'a'",
        "1 / 0",
        "1 mod 0",
        "1.5 div 1",
        "-payload.name",
        "nth(9, payload.list)",
        "nth(1, 'text')",
        "regex_match(topic, '(')",
        "contains(1, 'text')",
        "split('a', '')",
        "nothing and true",
    ],
)
def test_expressions_that_raise(expression: str) -> None:
    with pytest.raises(RuleException):
        value(expression)


@pytest.mark.parametrize(
    ("temperature", "answer"),
    [
        ("41", True),
        ("40", False),
        ("40.5", True),
        ("null", True),  # Erlang's term order: number < atom < map < list
        ("true", True),
        ("{}", True),
        ("[]", True),
        ('"41"', True),  # a text that spells a number is one
        ('"4"', False),
    ],
)
def test_an_unguarded_comparison_follows_erlangs_order(temperature: str, answer: bool) -> None:
    payload = f'{{"temperature": {temperature}}}'.encode()
    assert where("payload.temperature > 40", payload) is answer


@pytest.mark.parametrize("payload", [b'{"temperature": "hot"}', b"not json", b"", b"\xff"])
def test_text_and_payloads_that_are_not_json_raise(payload: bytes) -> None:
    with pytest.raises(RuleException):
        where("payload.temperature > 40", payload)


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b'{"temperature": 41}', True),
        (b'{"temperature": null}', False),
        (b'{"temperature": {}}', False),
        (b'{"temperature": "hot"}', False),
        (b"{}", False),
        (b"[1]", False),
    ],
)
def test_the_guard_keeps_other_types_out(payload: bytes, answer: bool) -> None:
    assert where("is_num(payload.temperature) and payload.temperature > 40", payload) is answer


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        ("1 = 1.0", True),
        ("1 <> 1", False),
        ("'a' != 'b'", True),
        ("true = 'true'", True),
        ("true = 1", False),
        ("payload.no = 'null'", True),
        ("nothing = 'undefined'", False),  # an undefined side makes every comparison false
        ("nothing > 40", False),
        ("nothing != 1", False),
        ("nothing = username", True),
        ("false < payload.no", True),
        ("json_decode('{}') < json_decode('[]')", True),
        ("json_decode('{\"a\":1}') < json_decode('{\"b\":1}')", True),
        ('json_decode(\'{"a":1}\') < json_decode(\'{"a":1,"b":1}\')', True),
        ("json_decode('[1,2]') < json_decode('[1,3]')", True),
        ("json_decode('[1]') < json_decode('[1,0]')", True),
        ("json_decode('[1]') < 'a'", True),
        ("'B' < 'a'", True),
        ("2 >= 2 and 2 <= 2", True),
        ("1 = 2 or not 1 = 2 and 3 = 3", True),
        ("clientid = 'http_api' and is_null(peerhost)", False),
    ],
)
def test_conditions(condition: str, answer: bool) -> None:
    assert where(condition, b'{"no": null}') is answer


def test_select_is_evaluated_before_where() -> None:
    rule = parse("SELECT base64_encode(nothing) FROM \"#\" WHERE clientid = 'somebody else'")
    with pytest.raises(RuleException):
        rule.run(EVENT)


def test_an_alias_is_a_column_for_what_follows() -> None:
    rule = parse(
        "SELECT json_decode(payload) AS p, p.list[2].x AS x, p.name FROM \"#\" WHERE x = 'y'"
    )
    output = rule.run(EVENT)
    assert output is not None
    assert output["x"] == "y"
    assert output["p"]["name"] == "Anna"  # type: ignore[index]


def test_without_as_a_path_keeps_its_shape() -> None:
    output = parse('SELECT payload.temperature, payload.name, flags.retain FROM "#"').run(EVENT)
    assert output == {
        "payload": {"temperature": 41, "name": "Anna"},
        "flags": {"retain": False},
    }


def test_star_is_all_columns_and_the_event_stays_untouched() -> None:
    before = json.dumps(EVENT, default=str)
    output = parse("SELECT *, 'x' AS flags.extra, payload.name FROM \"#\"").run(EVENT)
    assert output is not None
    assert output["clientid"] == "dev1"
    assert output["flags"] == {"retain": False, "dup": False, "extra": "x"}
    assert json.dumps(EVENT, default=str) == before


def test_output_as_json() -> None:
    output = {
        "missing": UNDEFINED,
        "null": None,
        "bytes": b"\xff\xfe\x00a\x80",
        "big": 2**70,
        "nested": [{"b": b"\xe4\xbd\xa0"}],
    }
    assert json.loads(to_json(output)) == {
        "missing": "undefined",
        "null": None,
        "bytes": "\ufffd\ufffd\x00a\ufffd",
        "big": 2**70,
        "nested": [{"b": "你"}],
    }


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


def test_a_deeply_nested_payload_raises_instead_of_ending_the_program() -> None:
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(RuleException):
        where("payload.a = 1", deep)


@pytest.mark.parametrize(
    ("sql", "line", "column", "part"),
    [
        ("SELEC x", 1, 1, 'syntax error before "SELEC"'),
        ("", 1, 1, "syntax error before the end"),
        ("SELECT id\nFROM t", 2, 6, "double quotes"),
        ('SELECT id FROM "t" WHERE', 1, 25, "syntax error before the end"),
        ('SELECT id FROM "t" WHERE a ~ 1', 1, 28, "'~'"),
        ('SELECT \'open FROM "t"', 1, 8, "not closed"),
        ('SELECT md5(payload) FROM "t"', 1, 8, "unknown function md5"),
        ('SELECT lower(a, b) FROM "t"', 1, 8, "takes 1 argument"),
        ('FOREACH payload FROM "t"', 1, 1, "FOREACH"),
        ('SELECT id FROM "t" WHERE a in (1)', 1, 28, "IN is outside"),
        ('SELECT case a when 1 then 2 end FROM "t"', 1, 13, "CASE WHEN"),
        ('SELECT id FROM "t" WHERE payload.x = null', 1, 38, "is_null"),
        ("SELECT 'it''s' FROM \"t\"", 1, 12, "before \"'s'\""),
        ('SELECT "x" FROM "t"', 1, 8, "single quotes"),
        ('SELECT a.1 FROM "t"', 1, 10, "a name"),
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


def test_an_unknown_function_is_named_with_what_there_is() -> None:
    with pytest.raises(SqlError, match="base64_encode") as caught:
        parse_where("sha256(payload) = 'x'")
    assert caught.value.column == 1


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
        output = _ANY.run({**EVENT, "payload": payload})
    except RuleException:
        return
    if output is not None:
        json.loads(to_json(output))


def test_the_statement_is_taken_apart() -> None:
    rule = parse('select id from "a/+" , "b/#"')
    assert rule.sources == ("a/+", "b/#")
    assert rule.matches("a/x")
    assert not rule.matches("a/x/y")


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
        ("CASE WHEN is_num(payload.a) THEN payload.a > 1 ELSE payload.a < 1 END", ["payload.a"]),
        ("CASE WHEN is_num(payload.a) THEN payload.a > 1 ELSE false END", []),
        ("payload.'my key' > 1", ["payload.'my key'"]),
    ],
)
def test_comparisons_without_a_guard(condition: str, unguarded: list[str]) -> None:
    assert payload_paths_without_guard(parse_where(condition)) == unguarded


@pytest.mark.parametrize(
    ("topic_filter", "topic", "answer"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("/xiaomi/+", "/xiaomi/chatgpt", True),
        ("+", "/a", False),
        ("+/+", "/a", True),
        ("a/b/c", "a/b", False),
    ],
)
def test_topic_filters(topic_filter: str, topic: str, answer: bool) -> None:
    assert matches(topic_filter, topic) is answer
