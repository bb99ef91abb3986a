"""Faults: each with its line, its key, a reason and what to do."""

import pytest

from service.errors import Fault
from service.flows import parse
from service.rulesql.reserved import REPLY_TOPIC

X = '[flows.x]\nrequest = "in/${user}"\nreply = "out/${user}"\n'
TOOL = '[[flows.x.tools]]\nname = "t"\ndescription = "d"\n'


def faults_of(text: str, model: str | None = None) -> list[Fault]:
    made, faults = parse(text, model=model)
    assert (made is None) == any(not fault.warning for fault in faults)
    return faults


def one(text: str) -> Fault:
    faults = faults_of(text)
    assert len(faults) == 1, [str(fault) for fault in faults]
    return faults[0]


# (text, line, what the fault says, what its hint says)
FAULTS = [
    # the file
    ("a = [1, 2}\n", 1, "no valid TOML: this list has no end", "a ] at the end"),
    (
        X + "qos = 1\nqos = 2\n",
        5,
        "cannot overwrite a value: qos is set already, at line 4",
        "once",
    ),
    ("", None, "no flow in it", "[flows.chat]"),
    (X + "[flow.y]", 4, "flow: unknown key", 'did you mean "flows"?'),
    (X + "[nothing]", 4, "nothing: unknown key", "known here: defaults, providers"),
    ('model = "x"\n' + X, 1, "model: unknown key", "under [defaults]"),
    ("flows = 3", 1, "flows: must be a table", "write [flows.NAME]"),
    ("defaults = 3\n" + X, 1, "defaults: must be a table", ""),
    ('[flows."a b"]\nrequest = "a"', 1, "can't be a flow's name", "rule in EMQX"),
    ("[flows]\nx = 1", 2, "flows.x: must be a table", ""),
    # types and ranges
    (X + "modle = 1", 4, "flows.x.modle: unknown key", 'did you mean "model"?'),
    (X + "zzz = 1", 4, "flows.x.zzz: unknown key", "known here: request, where"),
    (X + "[flows.x.defaults]", 4, "unknown key", "[defaults]"),
    ('[defaults]\nreqest = "a"\n' + X, 2, "defaults.reqest", 'did you mean "request"?'),
    (X + "qos = 3", 4, "must be 0, 1 or 2, not 3", ""),
    (X + "qos = true", 4, "true can't be used", "0, 1 or 2"),
    (X + 'input = "picture"', 4, 'must be "text", "json" or "image", not "picture"', ""),
    (X + 'format = "jsn"', 4, "format", 'did you mean "json"?'),
    (X + "retain = 1", 4, "must be true or false", ""),
    (X + 'system = ""', 4, "is empty", ""),
    (X + "system = 1", 4, "must be text in quotes", ""),
    (X + "timeout = 5", 4, "5 can't be used", 'write "5s"'),
    (X + 'timeout = "5"', 4, '"5" can\'t be used', '"1h30m"'),
    (X + 'expiry = "10ms"', 4, "can't be used", "at least 1s"),
    (X + 'limit = "ten"', 4, '"ten" can\'t be used', '"10/min"'),
    (X + "temperature = 3", 4, "3: it should be less than or equal to 2", ""),
    (X + "max_tokens = 0", 4, "greater than 0", ""),
    (X + "max_tokens = 1.5", 4, "whole number", ""),
    (X + "history = { messages = 1 }", 4, "greater than or equal to 2", ""),
    (X + "history = { tll = '1h' }", 4, "history.tll: unknown key", 'did you mean "ttl"?'),
    (X + "history = true", 4, "must be a table", ""),
    (X + "fallback = []", 4, "is empty", ""),
    (X + "fallback = [1]", 4, "fallback[0]: must be text", ""),
    (X + "params = { since = 2020-01-01 }", 4, "a date is no JSON", "quotes"),
    (X + "params = { a = [{ b = inf }] }", 4, "params.a[0].b: inf is no JSON", ""),
    (X + 'params = { messages = "x" }', 4, "can't be set here", "prompt"),
    # topics
    ('[flows.x]\nreply = "a"', 1, "request is missing", "request ="),
    ('[flows.x]\nrequest = ["a", "b/#/c"]', 2, "has # elsewhere", "a/#"),
    ('[flows.x]\nrequest = "dev-${x}"', 2, "mixes text and a name", "dev/"),
    ('[flows.x]\nrequest = "in/${payload}"', 2, "can't be called ${payload}", "another name"),
    ('[flows.x]\nrequest = "$share/g/a"', 2, "can't be a request topic", "leave $share"),
    ('[flows.x]\nrequest = "$queue/a"', 2, "can't be a request topic", "leave $queue"),
    ('[flows.x]\nrequest = "$delayed/5/a"', 2, "can't be a request topic", "when it is due"),
    ('[flows.x]\nrequest = "$events/client_connected"', 2, "can't be a request topic", ""),
    ('[flows.x]\nrequest = "$bridges/mqtt:x"', 2, "can't be a request topic", "republish"),
    (X + 'status = "a/+"', 4, "contains a wildcard", "plain topic: name the level in request"),
    (
        '[flows.x]\nrequest = "a/+"\nreply = "b/${plot}"',
        3,
        "${plot} stands for nothing",
        "for a level of the topic write ${plot} in request too",
    ),
    (X + 'status = "a/${topic}"', 4, "${topic} is several levels", "write the levels out"),
    (X + 'allow_response_topics = "a/#/b"', 4, "has # elsewhere", "replies/#"),
    # templates
    (X + 'prompt = "a ${"', 4, "${ without its } at character 3", "close it"),
    (X + 'prompt = "${usr}"', 4, "${usr} stands for nothing", "did you mean ${user}?"),
    (X + 'prompt = "${temp}"', 4, "${temp} stands for nothing", "${payload.temp}"),
    (X + 'prompt = "${user.x}"', 4, "${user} is a text; it has no x", "write ${user}"),
    (X + 'status = "a/${usr}"', 4, "${usr} stands for nothing", "${user}"),
    (X + 'dedupe = "same"', 4, "is the same for every message", "${payload.id}"),
    (
        '[flows.x]\nrequest = ["in/${a}/${b}", "also/${a}"]\nreply = "out/${b}"',
        3,
        '${b} is not captured by "also/${a}"',
        "split the flow",
    ),
    # regular expressions
    (X + 'strip = "(["', 4, "is no regular expression", "quotes"),
    (X + "require = '(?=a)b'", 4, "has a look-ahead", "match that text too"),
    (X + "require = '(?<!no )robot'", 4, "has a look-behind", "say what may stand there"),
    (X + "strip = '(a|b)\\1'", 4, "has a back reference", "write out what it repeats"),
    (X + "strip = '(?>a+)b'", 4, "has an atomic group", "(?:…)"),
    (X + "strip = 'a++b'", 4, "has a possessive repeat", "leave out the second +"),
    (X + "strip = '(?x) a'", 4, 'has the flag "x"', "without the others"),
    (X + "strip = 'a{2000}'", 4, "repeats more than 1000 times", "say less"),
    (X + "strip = '((a{100}){100}){100}'", 4, "too much for one regular expression", "say less"),
    (X + f'strip = "{"x" * 501}"', 4, "longer than 500", ""),
    # models and providers
    (X + 'model = "ollma/x"', 4, 'unknown provider "ollma"', '"openai/ollma/x"'),
    (
        '[providers.ollama]\nbase_url = "http://o/v1"\n' + X + 'fallback = "olama/x"',
        6,
        'unknown provider "olama"',
        'did you mean "ollama"?',
    ),
    ("[providers.o]\n" + X, 1, "base_url is missing", "base_url ="),
    ('[providers.o]\nbase_url = "o:1"\n' + X, 2, "is no address", "http://"),
    (
        '[providers.o]\nbase_url = "http://o"\napi_key_env = "sk-123"\n' + X,
        3,
        "is no name of an environment variable",
        "never the key",
    ),
    (
        "[prices]\ngpt-5.4-mini = { input = 1, output = 2 }\n" + X,
        2,
        "unknown key",
        '[prices."gpt-5.4-mini"]',
    ),
    (
        "[prices.x]\ninput = 1\noutput = 1\noutptu = 1\n" + X,
        4,
        "prices.x.outptu: unknown key",
        'did you mean "output"?',
    ),
    ("[prices.x]\ninput = 1\n" + X, 1, "prices.x.output: is missing", ""),
    ("[prices.x]\ninput = -1\noutput = 1\n" + X, 2, "greater than or equal to 0", ""),
    # keys that don't go together
    (X + 'input = "image"\nprompt = "p"\nstrip = "x"', 6, "looks for text", "leave strip out"),
    (X + 'input = "image"\nprompt = "${payload.x}"', 5, "but it is a picture", "leave"),
    (
        X + 'stream = "s"\nschema = { type = "object" }',
        4,
        "can't go with schema",
        "leave one of them out",
    ),
    # JSON Schema
    (X + "[flows.x.schema]\ntype = 'objct'", 5, '"objct" is no type', '"object"'),
    (
        X + "schema = { type = 'object', required = 'a' }",
        4,
        "schema.required: is no JSON Schema",
        "",
    ),
    (
        X + "[flows.x.schema]\ntype = 'object'\nproperties.a = { pattern = '([' }",
        6,
        "properties.a.pattern: is no regular expression",
        "",
    ),
    (
        X + "[flows.x.schema]\ntype = 'object'\nproperties.a = { pattern = '^(?!x)' }",
        6,
        "properties.a.pattern: has a look-ahead",
        "say what may stand there",
    ),
    (
        X + "[flows.x.schema]\ntype = 'object'\npatternProperties = { '(a)\\1' = {} }",
        6,
        "has a back reference",
        "write out",
    ),
    (
        X + "tools = [{ name = 't', description = 'd', topic = 'cmd', parameters = { properties = "
        "{ a = { anyOf = [{ pattern = '(?<=a)' }] } } } }]",
        4,
        "has a look-behind",
        "",
    ),
    (
        X + "[flows.x.schema]\ntype = 'object'\nproperties.a = { '$ref' = '#/$defs/b' }",
        6,
        "points to nothing",
        "",
    ),
    (
        X
        + "[flows.x.schema]\ntype = 'object'\n'$ref' = '#/$defs/a0'\n'$defs'.a14 = {}\n"
        + "".join(
            f"'$defs'.a{n}.anyOf = [{{ '$ref' = '#/$defs/a{n + 1}' }}, "
            f"{{ '$ref' = '#/$defs/a{n + 1}' }}]\n"
            for n in range(14)
        ),
        4,
        "stands for more than 10000 schemas",
        "fewer levels",
    ),
    (
        X + "schema = { type = 'object', '$ref' = 'http://x/y' }",
        4,
        "points out of the file",
        "",
    ),
    # tools
    (X + "tools = 1", 4, "tools: must be a list", ""),
    (X + "[[flows.x.tools]]\nname = 't'\ntopic = 'a'", 4, "tools[0].description: is missing", ""),
    (
        X + "[[flows.x.tools]]\nname = 'a b'\ndescription = 'd'",
        5,
        '"a b" is no tool name',
        "letters, digits",
    ),
    (X + TOOL, 4, "has neither topic nor read", "topic:"),
    (X + TOOL + 'topic = "a"\nread = "b"', 8, "can't go with topic", "two tools"),
    (X + TOOL + 'read = "a"\npayload = "b"', 8, "is never published", "topic"),
    (X + TOOL + 'topic = "a"\n' + TOOL + 'topic = "b"', 9, 'a second tool "t"', "another name"),
    (X + TOOL + 'topic = "a/${room}"', 7, "${room} stands for nothing", ""),
    (
        X + TOOL + 'topic = "a/${room}"\nparameters = { properties = { room = {} } }',
        7,
        "${room} may be missing",
        'required = ["room"',
    ),
    (
        X
        + TOOL
        + 'topic = "a/${r}"\nparameters = { required = ["r"], properties.r.type = "array" }',
        7,
        "${r} is an array",
        "a text or a number",
    ),
    (
        X + TOOL + 'topic = "a"\nparameters = { type = "array" }',
        8,
        "always an object",
        'type = "object"',
    ),
    (
        X
        + TOOL
        + 'topic = "a/${user}"\nparameters = { required = ["user"], properties.user = {} }',
        7,
        "${user} is an argument, and a name of the message too",
        "another name",
    ),
    # the broker
    (X + 'where = "${payload.a} > 1"', 4, "knows no ${…}", "write the name alone: payload.a > 1"),
    (X + 'where = "payload.t >"', 4, "EMQX refuses this: syntax error before the end", ""),
    (X + 'where = "payload.t > 4e1"', 4, "EMQX refuses this", ""),
    (X + 'where = "qos = 1;"', 4, "EMQX refuses this", "leave the semicolon out"),
    (X + 'where = "payload.`t` = 1"', 4, "EMQX refuses this", "single quotes"),
    (X + 'where = "CASE WHEN qos = 1 THEN true END"', 4, "EMQX refuses this", "in SELECT and"),
    (X + 'where = "payload.flag"', 4, "a bare value is no condition", "write payload.flag = true"),
    (X + 'where = "qos = 1 or payload.a"', 4, "a bare value", "write payload.a = true"),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), FAULTS)
def test_faults(text: str, line: int | None, message: str, hint: str) -> None:
    fault = one(text)
    assert not fault.warning
    assert message in fault.message
    assert hint in fault.hint
    assert fault.line == line
    assert str(fault).startswith(f"flows.toml:{line}: " if line else "flows.toml: ")


WARNINGS = [
    (X + 'model = "gpt-3.5-turbo-0125"', 4, "2026-10-23", "gpt-5.4-mini"),
    (X + 'model = "gpt-4o"', 4, "2027-01-14", "gpt-5.4-mini"),
    (X + 'fallback = ["gpt-5.4", "gpt-4o-mini"]', 4, "2027-01-14", ""),
    (
        '[defaults]\nmodel = "gpt-5-mini"\n' + X + X.replace("x", "y").replace("in/", "i/"),
        2,
        "2026-12-11",
        "",
    ),
    (X + 'fallback = "gpt-5.4-mini"', 4, "is the model itself", ""),
    ('[flows.x]\nrequest = "a"', 1, "has no reply topic", "reply ="),
    (
        '[flows.x]\nrequest = "a/+"\nreply = "b"\ncooldown = "5m"',
        2,
        "share one conversation",
        "${user}",
    ),
    (X + 'deadline = "30s"', 4, "shorter than timeout", ""),
    (X + 'status = "out/${user}"', 4, "is the topic of reply too", "its own"),
    (X + 'require = "x?"', 4, "even in an empty text", ""),
    (X + 'input = "image"', 4, "without a prompt", "prompt ="),
    (X + 'input = "image"\nprompt = "p"\nhistory = {}', 6, "not the pictures", ""),
    (X + 'schema = { type = "array" }', 4, 'not of type = "object"', "wrap it"),
    (X + 'format = "json"\nschema = { type = "object" }', 4, "which is JSON already", "leave"),
    (
        X + 'where = "payload.t > 40"',
        4,
        "payload.t may be no number",
        "is_num(payload.t) and payload.t > 40",
    ),
    (X + 'where = "payload.t > 40 or qos = 1"', 4, "payload.t may be no number", "before each"),
    (X + 'where = "temperature = 40"', 4, "temperature is no field", "payload.temperature"),
    (X + "where = \"client_id = 'a'\"", 4, "client_id is no field", 'did you mean "clientid"?'),
    (X + 'where = "payload.a = null"', 4, "null is no field", "is_null_var("),
    (X + 'where = "frobnicate(payload.t)"', 4, "EMQX has no function frobnicate", "EMQX itself"),
    (X + 'where = "Is_Num(payload.t)"', 4, "EMQX has no function Is_Num", 'did you mean "is_num"?'),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), WARNINGS)
def test_warnings(text: str, line: int, message: str, hint: str) -> None:
    fault = one(text)
    assert fault.warning
    assert message in fault.message
    assert hint in fault.hint
    assert fault.line == line


@pytest.mark.parametrize(
    "model", ["gpt-4o-audio-preview", "gpt-4.1", "gpt-5.4-mini", "local/gpt-3.5-turbo"]
)
def test_models_that_stay(model: str) -> None:
    assert not faults_of(f'[providers.local]\nbase_url = "http://x"\n{X}model = "{model}"')


# loops: nothing that is published may be asked again


@pytest.mark.parametrize(
    "keys",
    [
        'error = "in/${user}"',
        'stream = "in/x"',
        'status = "${payload.a}/x"',
        'status = "$delayed/5/in/x"',
        'status = "$delayed/${payload.a}/in/x"',
        'allow_response_topics = ["a", "in/+"]',
        'allow_response_topics = "in/#"',
        'allow_response_topics = "$delayed/+/in/#"',
        TOOL + 'topic = "in/lamp"',
    ],
)
def test_loops_into_the_own_request_topic(keys: str) -> None:
    fault = one(X + keys)
    assert 'its own request topic "in/${user}"' in fault.message
    assert "plain text" in fault.hint
    assert fault.line == len((X + keys).splitlines())


def test_loops_through_another_flow() -> None:
    text = X + '[flows.y]\nrequest = "out/#"\nreply = "in/7"\n'
    first, second = faults_of(text)
    assert (first.line, second.line) == (3, 6)
    assert 'flow "y"\'s request topic "out/#"' in first.message
    assert 'flow "x"\'s request topic "in/${user}"' in second.message


def test_the_error_topic_that_is_the_reply_topic_is_told_once() -> None:
    one('[flows.x]\nrequest = "a/${b}"\nreply = "a/x"')


@pytest.mark.parametrize(
    "keys",
    [
        'status = "inn/${user}"',
        'status = "in/${user}/x"',
        'status = "${user}"',
        'status = "$delayed/5/x/y"',
        'allow_response_topics = ["a/#", "in"]',
        TOOL + 'read = "in/lamp"',
    ],
)
def test_no_loop(keys: str) -> None:
    assert not faults_of(X + keys)


@pytest.mark.parametrize(
    "keys",
    ["reply", "error", "status", "stream", "allow_response_topics"],
)
def test_the_internal_topics_of_replies_are_nobody_elses(keys: str) -> None:
    for topic in (REPLY_TOPIC, f"{REPLY_TOPIC}/emqx_gpt", f"{REPLY_TOPIC}/any_prefix"):
        text = f'[flows.x]\nrequest = "in"\n{keys} = "{topic}"\n'
        assert any("internal topic" in fault.message for fault in faults_of(text))
    for wide in ("#", "$delayed/#", "$delayed/+/#"):
        text = f'{X}allow_response_topics = "{wide}"\n'
        assert len(faults_of(text)) == 2  # that, and the own request topic
    for wide in (REPLY_TOPIC.split("/")[0] + "/+", f"{REPLY_TOPIC}/+"):
        listening = f'[flows.x]\nrequest = "{wide}"\nreply = "out"\n'
        assert "internal topic" in one(listening).message


# overlaps


Y = '[flows.y]\nrequest = "in/7"\nreply = "o"\n'
GUARDED = 'where = "payload.a = 1"\n'


def test_two_flows_on_one_topic() -> None:
    fault = one(X + Y)
    assert fault.line == 5
    assert '"in/7" overlaps with "in/${user}" of flow "x"' in fault.message
    assert fault.hint.endswith("missing in x and y")
    assert one(X + GUARDED + Y).hint.endswith("missing in y")


def test_two_flows_with_their_own_conditions_are_a_warning() -> None:
    fault = one(X + GUARDED + Y + GUARDED.replace("1", "2"))
    assert fault.warning
    same = one(X + GUARDED + Y + GUARDED.replace("= 1", "=  1"))
    assert not same.warning
    assert "same condition" in same.message


# all at once


def test_all_faults_at_once_in_order() -> None:
    text = (
        '[defaults]\nqos = 7\n[flows.x]\nrequest = "in/${user}"\nreply = "in/${usr}"\n'
        'modle = "a"\nprompt = "${nobody}"\n[flows.y]\nreply = 3\n[flows.z]\nrequest = "#"\n'
        'reply = "z"\n'
    )
    faults = faults_of(text)
    assert [fault.line for fault in faults] == [2, 5, 5, 5, 6, 7, 8, 9, 11, 11, 12]


def test_a_fault_in_defaults_is_told_once() -> None:
    text = '[defaults]\nprompt = "${nobody}"\n' + X + Y.replace("in/7", "i")
    assert one(text).line == 2
    assert one(text).message.startswith("defaults.prompt: ")


def test_secrets_are_not_shown() -> None:
    fault = one('[providers.o]\nbase_url = "http://o"\napi_key_env = "sk-very-secret"\n' + X)
    assert "very" not in str(fault)


def test_long_values_are_cut() -> None:
    assert len(one(X + f'limit = "{"9" * 1000}"').message) < 200


def test_who_sums_up_must_be_known() -> None:
    flow = '[flows.a]\nrequest = "a/${user}"\nreply = "b/${user}"\nhistory = { summarize = %s }\n'
    for good in ("true", "false", '"gpt-5.4-nano"'):
        assert parse(flow % good)[1] == []
    (fault,) = parse(flow % '"nobody/m"')[1]
    assert fault.line == 4
    assert 'unknown provider "nobody"' in str(fault)
    (fault,) = parse(flow % "3")[1]
    assert "summarize" in str(fault)


SUMMED = '[flows.a]\nrequest = "a/${user}"\nreply = "b/${user}"\nhistory = { %s }\n'


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("messages = 20, tokens = 1000, summarize = true", None),
        ("messages = 2, tokens = 100", None),
        ("messages = 2, tokens = 100, summarize = false", None),
        ("messages = 4, summarize = true", "with messages = 4 costs a second call"),
        ('messages = 20, tokens = 500, summarize = "gpt-5.4-nano"', "leaves no room for a summary"),
    ],
)
def test_a_memory_too_small_for_a_summary_is_warned_of(keys: str, words: str | None) -> None:
    made, faults = parse(SUMMED % keys)
    assert made is not None
    assert [fault.line for fault in faults] == ([] if words is None else [4])
    assert all(fault.warning and str(words) in str(fault) and fault.hint for fault in faults)


def test_who_sums_up_is_one_of_the_models_that_are_asked() -> None:
    text = '[providers.cheap]\nbase_url = "http://cheap/v1"\n' + SUMMED
    made, faults = parse(text % 'summarize = "cheap/m"')
    assert made is not None, faults
    assert [str(one) for one in made.flows["a"].all_models] == ["gpt-5.4-mini", "cheap/m"]
    for same in ("true", '"gpt-5.4-mini"', "false"):
        made, _ = parse(text % f"summarize = {same}")
        assert made is not None
        assert made.flows["a"].all_models == made.flows["a"].models
