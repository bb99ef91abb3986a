"""The mistakes that newcomers make: each is told with its line and the cure that fits."""

import pytest

from service.errors import Fault
from service.flows import parse

X = '[flows.x]\nrequest = "in/${user}"\nreply = "out/${user}"\n'
TOOL = "[[flows.x.tools]]\nname = 't'\ndescription = 'd'\n"


def faults_of(text: str) -> list[Fault]:
    made, faults = parse(text)
    assert (made is None) == any(not fault.warning for fault in faults)
    return faults


def one(text: str) -> Fault:
    faults = faults_of(text)
    assert len(faults) == 1, [str(fault) for fault in faults]
    return faults[0]


def where(condition: str) -> str:
    return f'{X}where = """{condition}"""'


# Names as other programs write them.

REPLY = '[flows.x]\nrequest = "in/${user}"\nreply = '
TOPICS = [
    (REPLY + '"out/$user"', 3, "$user stands for nothing", "did you mean ${user}?"),
    (REPLY + '"out/{user}"', 3, "{user} stands for nothing", "did you mean ${user}?"),
    (REPLY + '"out/{{user}}"', 3, "{{user}} stands for nothing", "did you mean ${user}?"),
    (REPLY + '"out/{{ user }}"', 3, "{{ user }} stands", "did you mean ${user}?"),
    (REPLY + '"out/$(user)"', 3, "$(user) stands", "did you mean ${user}?"),
    (REPLY + '"out/<user>"', 3, "<user> stands", "did you mean ${user}?"),
    (REPLY + '"out/:user"', 3, ":user stands", "did you mean ${user}?"),
    (REPLY + '"out/%user%"', 3, "%user% stands", "did you mean ${user}?"),
    (REPLY + '"out/%u"', 3, "%u stands", "did you mean ${username}?"),
    (REPLY + '"out/%c"', 3, "%c stands", "did you mean ${clientid}?"),
    (REPLY + '"out/{clientid}"', 3, "{clientid} stands", "did you mean ${clientid}?"),
    (REPLY + '"out/${{user}}"', 3, '"{user" is no name', "did you mean ${user}?"),
    (REPLY + '"out/${ user }"', 3, '" user " is no name', "did you mean ${user}?"),
    (X + "prompt = \"${payload['a'][0]}\"", 4, "is no name", "did you mean ${payload.a.0}?"),
    (X + 'conversation = "{user}"', 4, "{user} stands for nothing", "did you mean ${user}?"),
    (
        X + TOOL + "topic = 'a/{r}'\nparameters = { required = ['r'], properties = { r = {} } }",
        7,
        "tools[0].topic: {r} stands for nothing",
        "did you mean ${r}?",
    ),
    ('[flows.x]\nrequest = "in/{user}"\nreply = "out/${user}"', 2, '"{user}"', "${user}?"),
    ('[flows.x]\nrequest = "in/{{user}}"\nreply = "out"', 2, '"{{user}}"', "${user}?"),
    ('[flows.x]\nrequest = "in/$user"\nreply = "out/${user}"', 2, '"$user"', "${user}?"),
    ('[flows.x]\nrequest = "in/%u"\nreply = "out"', 2, '"%u"', "did you mean ${user}?"),
]
TEXTS = [
    (X + 'prompt = "Say {payload}"', 4, "{payload} stands for", "did you mean ${payload}?"),
    (X + 'system = "You help $user."', 4, "$user stands for", "did you mean ${user}?"),
    (X + 'system = "For {{ user }}"', 4, "{{ user }} stands", "did you mean ${user}?"),
    (X + 'prompt = "{payload.t} °C"', 4, "{payload.t} stands", "did you mean ${payload.t}?"),
    (X + 'prompt = "%c asks"', 4, "%c stands for", "did you mean ${clientid}?"),
    (X + 'status = "a/{device}"', 4, "{device} stands for", "known here: user"),
    ('[flows.x]\nrequest = "in/:dev"\nreply = "out"', 2, '":dev"', "did you mean ${dev}?"),
    ('[flows.x]\nrequest = "in/*"\nreply = "out"', 2, '"*"', "+ is any one level"),
]


@pytest.mark.parametrize(
    "keys",
    [
        """prompt = 'As {"user": 1} or {"a": {"b": {}}} or {x} or { user: 1 }: ${payload}'""",
        """system = '$5, 100%, 50%c, %d, <user>${user}</user>, note:user, {}, {{}}, ${$}{user}'""",
        'on_error = \'{"error": "busy"}\'',
        'stream = "$delayed/5/x/${user}"',
        'status = "homie/${user}/$state"',
    ],
)
def test_braces_and_signs_that_are_meant(keys: str) -> None:
    assert not faults_of(X + keys)


def test_topics_with_a_dollar_of_their_own() -> None:
    assert not faults_of('[flows.x]\nrequest = "homie/${dev}/$state"\nreply = "out/${dev}"')


def test_a_level_that_captures_nothing_is_told_once_where_it_is_meant() -> None:
    first, second = faults_of('[flows.x]\nrequest = "in/{user}"\nreply = "out/{user}"')
    assert (first.line, second.line) == (2, 3)
    assert first.hint == second.hint == "did you mean ${user}?"


# Conditions.

CONDITIONS = [
    ("payload.a == 1", "compares with one = at line 1, 11", "write ="),
    ("payload.a === 1", "compares with one =", "write ="),
    ("payload.a !== 1", "no !==", "write !="),
    ("qos => 1", "no =>", "write >="),
    ("qos = 1 && payload.a = 1", "no & at line 1, 9", "write and"),
    ("qos = 1 || payload.a = 1", "no |", "write or"),
    ("!(qos = 1)", "no !", "write not (…)"),
    ("!payload.on and qos = 1", "no !", "write payload.on = false"),
    ("payload.a is None", "no is", "write is_null_var(payload.a)"),
    ("payload.a IS NULL", "no is", "write is_null_var(payload.a)"),
    ("payload.a is not null", "no is not", "write is_not_null_var(payload.a)"),
    ("payload.a in ['x', 'y']", "after in", "write in ('x', 'y')"),
    ("payload.a in 'x'", "after in", "write in ('x')"),
    ("payload.a between 1 and 5", "no between", "write payload.a >= 1 and payload.a <= 5"),
    ("payload.a like 'x%'", "no such word", "write regex_match(payload.a, "),
    ("payload contains 'robot'", "no such word", "write regex_match(payload, "),
    ("payload.a.startswith('x')", "no functions of its own", "write regex_match(payload.a, "),
    ("payload['a'] = 1", "keys follow a point", "write payload.a"),
    ("$.a = 1", "no $", "write payload.a"),
    ("payload.a = ‘on’", "no quote of SQL", "'on'"),
    ("payload.a = 30°C", "no unit", "the number alone"),
    ("WHERE qos = 1", "only the condition", "leave the word WHERE out"),
    ("SELECT * FROM 'a' WHERE qos = 1", "only the condition", "leave out all up to WHERE"),
]
LOOSE_CONDITIONS = [
    ("payload.a = True", "True is no field", "write true"),
    ("payload.a = False", "False is no field", "write false"),
    ("payload.a = None", "None is no field", "write is_null_var("),
    ('payload.a = "on"', '"on" in double quotes', "in single quotes: 'on'"),
    ("payload.a = on", "on is no field", "in single quotes, 'on'"),
    ("temperature > 30", "temperature is no field", "payload.temperature"),
    ("sensor.t > 30", "sensor is no field", "payload.sensor.t"),
    ("user = 'ada'", "user is no field", "write nth(2, tokens(topic, '/'))"),
    ("retain = true", "retain is no field", "write flags.retain"),
    ("PAYLOAD.a = 1", "PAYLOAD is no field", "write payload"),
    ("payload.my-key = 1", "key is no field", "payload.'my-key'"),
    ("topic = 'in/+'", "true for no message", "write topic =~ 'in/+'"),
    ("payload.a =~ 'robot'", "not with a regular expression", "regex_match(payload.a, 'robot')"),
    ("payload.l[0] = 1", "lists count from 1", "write payload.l[1]"),
    ("payload.n = 5 or qos = 1", "payload.n may be a text", "(is_num(payload.n) and payload.n"),
    ("payload.s = 'a' or qos = 1", "payload.s may be a number", "(is_str(payload.s) and"),
]


@pytest.mark.parametrize(("condition", "message", "hint"), CONDITIONS)
def test_conditions_of_other_languages(condition: str, message: str, hint: str) -> None:
    fault = one(where(condition))
    assert not fault.warning
    assert fault.line == 4
    assert "EMQX refuses this" in fault.message
    assert message in fault.message
    assert hint in fault.hint


@pytest.mark.parametrize(("condition", "message", "hint"), LOOSE_CONDITIONS)
def test_conditions_that_emqx_takes_otherwise(condition: str, message: str, hint: str) -> None:
    quoted = f"{X}where = '''{condition} '''"
    fault = one(quoted)
    assert fault.warning
    assert fault.line == 4
    assert message in fault.message
    assert hint in fault.hint


@pytest.mark.parametrize(
    "condition",
    [
        "payload.a != 1 and payload.b <> 'x'",
        "payload.on = true",
        "payload.on = true or qos = 1",
        "payload.cmd = 'on' or payload.cmd = 'off'",
        "qos = 1 or payload.n = 5",
        "(is_num(payload.n) and payload.n = 5) or qos = 1",
        "payload.s = '== && || ! is None “x”'",
        "qos = 1 AND NOT (clientid = 'a') OR topic =~ 'in/+'",
        "payload.l[1] = 1 and qos not in (1, 2)",
        "flags.retain = true",
    ],
)
def test_conditions_that_are_fine(condition: str) -> None:
    assert not faults_of(where(condition))


def test_a_condition_of_another_language_is_looked_at_for_more() -> None:
    faults = faults_of(f"{X}where = '''temperature == 30 && state == \"on\"'''")
    assert [fault.warning for fault in faults] == [False, False, True, True, True]
    assert {fault.line for fault in faults} == {4}


# TOML.

TOML = [
    (X + 'require = "\\d+"', 4, '"\\d" is none', r"in single quotes: require = '\d+'"),
    (X + 'require = "it\'s \\d"', 4, '"\\d" is none', "each \\ twice"),
    (X + "history = True", 4, "True is no word of TOML", "write true"),
    (X + "retain = True", 4, "True is no word of TOML", "write true"),
    (X + "retain = FALSE", 4, "FALSE is no word of TOML", "write false"),
    (X + "retain = yes", 4, "yes is no word of TOML", "write true"),
    (X + "status = None", 4, "None is no value", "leave the key out"),
    (X + "status = null", 4, "null is no value", "leave the key out"),
    (X + "status =", 4, "status has no value", "leave the key out"),
    (X + "status", 4, "status has no value", "status = …"),
    (X + "status = a/b", 4, "text without quotes", 'write status = "a/b"'),
    (X + "model = gpt-5.4", 4, "text without quotes", 'write model = "gpt-5.4"'),
    (X + "timeout = 30s", 4, "text without quotes", 'write timeout = "30s"'),
    (X + "limit = 10/min", 4, "text without quotes", 'write limit = "10/min"'),
    (X + "fallback = [gpt-5.4]", 4, "text without quotes", 'quotes: "gpt-5.4"'),
    (X + "temperature = .5", 4, "can't begin with its point", "0.5"),
    (X + "temperature = 0,5", 4, "a number has a point", "temperature = 0.5"),
    (X + "max_tokens = 10k", 4, "a number has no unit", "max_tokens = 10000"),
    (X + "qos == 1", 4, "one = stands between", "write qos = 1"),
    (X + "qos = 1,", 4, "does not end in ,", "leave the , out"),
    (X + "qos = 1;", 4, "does not end in ;", "leave the ; out"),
    (X + "qos: 1", 4, "after qos stands a :", "write qos = …"),
    (X + "max tokens = 5", 4, '"max tokens" is no key', "write max_tokens"),
    (X + "// hello", 4, "a comment begins with #", "write # in its place"),
    (X + "qos = 1 // hello", 4, "a comment begins with #", "write # in its place"),
    (X + "model = “gpt-5.4”", 4, "“ is no quote of TOML", 'model = "gpt-5.4"'),
    (X + "model = ‘gpt-5.4’", 4, "‘ is no quote of TOML", 'model = "gpt-5.4"'),
    (X + 'model = "gpt-5.4”', 4, "” is no quote of TOML", 'model = "gpt-5.4"'),
    (X + "qos ＝ 1", 4, "＝ only looks like =", "plain ="),
    (X + "qos\u00a0= 1", 4, "(U+00A0)", "plain blank"),
    ("\u200b" + X, 1, "(U+200B)", "plain blank"),
    (X + 'status = "a', 4, "has no end", 'write a " at its end'),
    (X + 'status = "a\nqos = 1', 4, "has no end", 'write a " at its end'),
    (X + 'system = "a\nb"', 4, "can't go over the line's end", '"""'),
    (X + 'system = "a "b" c"', 4, 'a " within the text ends it', "write system = "),
    (X + "status = 'o'brien'", 4, "a ' within the text ends it", 'status = "o\'brien"'),
    (X + "history = {\n messages = 4\n}", 4, "has to end in the same line", "of its own"),
    (X + "history = { messages = 4, }", 4, "a , stands before the }", "leave the , out"),
    (X + "history = {}\n[flows.x.history]", 5, "history is set already, at line 4", "in one place"),
    (X + X, 4, "[flows.x] stands here a second time, first at line 1", "another name"),
    (X.replace("x]", "x", 1), 1, "[ is closed by ]", "write [flows.x]"),
    (X.replace("flows.x", "flows.my x", 1), 1, "a table's name", "write [flows.my_x]"),
    ("flows:\n  x:\n    request: a", 1, "this is YAML", "[flows.NAME]"),
    ('{"flows": {}}', 1, "this is JSON", "[flows.NAME]"),
    ("```toml\n" + X, 1, "none of the file's", "delete it"),
]
SHAPES = [
    (X + "[flows.x.tools]\nname = 't'", 4, "must be a list", "write [[flows.x.tools]], with two"),
    (X + "tools = ['light']", 4, "must be a table", "write [[flows.x.tools]]"),
    (X + "[[tools]]\nname = 't'", 4, "tools: unknown key", "write [[flows.x.tools]]"),
    (X + "[history]\nmessages = 4", 4, "history: unknown key", "write [flows.x.history]"),
    (X + "history = 6", 4, "must be a table", "write history = { messages = 6 }"),
    (X + "limit = 10", 4, "10 can't be used", 'write "10/min"'),
    (X + 'limit = "10 per minute"', 4, "can't be used", 'write "10/min"'),
    (X + 'limit = "10/hours"', 4, "can't be used", 'write "10/h"'),
    (X + "deadline = 90", 4, "90 can't be used", 'write "90s"'),
    (X + 'deadline = "90"', 4, "can't be used", 'write "90s"'),
    (X + 'deadline = "5 minutes"', 4, "can't be used", 'write "5m"'),
    (X + 'retain = "true"', 4, "must be true or false", "write true, without quotes"),
    (X + 'qos = "1"', 4, "must be 0, 1 or 2", "write 1, without quotes"),
    (X + 'temperature = "0.2"', 4, "must be a number", "write 0.2, without quotes"),
    (X + 'input = "JSON"', 4, 'not "JSON"', 'did you mean "json"?'),
    (X + "stream = true", 4, "must be text", 'stream = "stream/${user}"'),
    (X + "system = ['a', 'b']", 4, "must be text", "one text"),
    (X + "schema = '{}'", 4, "must be a table", "[flows.x.schema]"),
    ('request = "a"', 1, "request: unknown key", "under its [flows.NAME]"),
    ('[flow.x]\nrequest = "a"', 1, "flow: unknown key", "write [flows.x]"),
    ('[Flows.x]\nrequest = "a"', 1, "Flows: unknown key", "write [flows.x]"),
    ('[chat]\nrequest = "a"', 1, "chat: unknown key", "a flow's table is [flows.chat]"),
    ('[flows]\nrequest = "a"', 2, "must be a table", "write [flows.chat] above"),
    ('[[flows.x]]\nrequest = "a"', 1, "must be a table", "[flows.x], with one bracket"),
    (X + '[flows.a.b]\nrequest = "a"', 4, "flows.a.b: unknown key", "write [flows.a_b]"),
    (X + '[providers]\nbase_url = "http://x/v1"', 5, "must be a table", "[providers.NAME]"),
    (X + "[flows.x.history]\nqos = 1", 5, "unknown key", "write it above [flows.x.history]"),
    (X + 'ttl = "1h"', 4, "ttl: unknown key", "history = { ttl = … }"),
    (X + "top_p = 1", 4, "top_p: unknown key", "params = { top_p = … }"),
    (X + 'topic = "a"', 4, "topic: unknown key", "request is the topic"),
    (X + 'response = "a"', 4, "response: unknown key", 'did you mean "reply"?'),
    (X + 'api_key = "sk-1"', 4, "api_key: unknown key", "OPENAI_API_KEY"),
    (X + 'require = "\\bhey"', 4, "has a backspace", "in single quotes"),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), TOPICS + SHAPES)
def test_faults(text: str, line: int, message: str, hint: str) -> None:
    found = [fault for fault in faults_of(text) if not fault.warning]
    fault = next(fault for fault in found if message in fault.message)
    assert hint in fault.hint
    assert fault.line == line
    assert len(found) == 1 or "flows.a.b" in text, [str(each) for each in found]


@pytest.mark.parametrize(("text", "line", "message", "hint"), TOML)
def test_what_is_no_toml(text: str, line: int, message: str, hint: str) -> None:
    fault = faults_of(text)[0]
    assert fault.message.startswith("no valid TOML: ")
    assert message in fault.message
    assert hint in fault.hint
    assert fault.line == line


@pytest.mark.parametrize(("text", "line", "message", "hint"), TEXTS)
def test_warnings(text: str, line: int, message: str, hint: str) -> None:
    fault = one(text)
    assert fault.warning
    assert message in fault.message
    assert hint in fault.hint
    assert fault.line == line


def test_a_key_of_the_flow_below_its_schema() -> None:
    fault = one(f"{X}[flows.x.schema]\ntype = 'object'\nmodel = 'gpt-5.4'\n")
    assert fault.warning
    assert fault.line == 6
    assert "stands above [flows.x.schema]" in fault.hint


def test_faults_of_toml_hide_neither_each_other_nor_the_rest() -> None:
    text = (
        "[flows.x]\nrequest = in/${user}\nreply = “out/{user}”\nretain = True\n"
        'strip = "\\w+"\nmodle = "x"\nlimit = 10\n'
    )
    assert [fault.line for fault in faults_of(text)] == [2, 3, 3, 4, 5, 6, 7]


def test_a_file_of_windows_or_with_tabs_is_fine() -> None:
    assert not faults_of("\ufeff" + X.replace("\n", "\r\n\t"))
    fault = one("\ufeff" + X.replace("\n", "\r\n") + "retain = True\r\n")
    assert fault.line == 4


@pytest.mark.parametrize("value", ["\r'''\"a/b\"", '\r"a', "a\\'\"\r\0"])
def test_a_line_that_no_cure_mends_is_given_up(value: str) -> None:
    faults = faults_of(f"{X}status = {value}")
    assert {fault.line for fault in faults} == {4}
    assert len(faults) <= 5


@pytest.mark.parametrize("key", ["api_key = sk-very-secret", "token = “very-secret”"])
def test_secrets_and_prompts_are_not_shown(key: str) -> None:
    assert all("secret" not in str(fault) for fault in faults_of(X + key))
    prompts = faults_of(X + 'system = the very "long" prompt')
    assert all("very" not in str(fault) for fault in prompts)
