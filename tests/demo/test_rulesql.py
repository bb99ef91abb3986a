"""The subset of EMQX's rule SQL, as tables. What a real 5.8.9 did is in FACTS-derived rows."""

from __future__ import annotations

import json

import pytest

from service.rulesql import UNDEFINED, RuleException, parse, to_json

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
        ("qos = 1", True),
        ("a.1", UNDEFINED),
        ("payload.list[-1].x", "y"),
        ("payload.list[0]", UNDEFINED),
        ("is_null_var(payload.no)", True),
        ("is_not_null_var(nothing)", False),
        ("1 + 'a'", b"1a"),
        ("40e1", 400.0),
        ("coalesce(nothing, 'd')", "d"),
        ("sha256('a')", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        ("contains(CASE WHEN qos = 1 THEN 5 END, payload.list)", True),
        ("is_null(username)", True),
        ("is_null(payload.no)", False),
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
        "CASE WHEN nothing THEN 1 ELSE 2 END",
        "1 - 'a'",
        "1 / 0",
        "1 mod 0",
        "1.5 div 1",
        "-payload.name",
        "nth(9, payload.list)",
        "nth(1, 'text')",
        "regex_match(topic, '(')",
        "contains(1, 'text')",
        "split('a', '')",
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


def test_a_deeply_nested_payload_raises_instead_of_ending_the_program() -> None:
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(RuleException):
        where("payload.a = 1", deep)


def test_the_statement_is_taken_apart() -> None:
    rule = parse('select id from "a/+" , "b/#"')
    assert rule.sources == ("a/+", "b/#")
    assert rule.matches("a/x")
    assert not rule.matches("a/x/y")
