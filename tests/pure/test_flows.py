"""flows.toml → flows: every key, defaults, line numbers, and what the flows then do."""

import dataclasses
import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import Message
from service.errors import ConfigError
from service.flows import Flow, Flows, Limit, ModelRef, Price, Provider, load, parse
from service.flows.keys import keys_of
from service.flows.lines import scan
from service.flows.schema import json_schema
from service.flows.tables import FlowKeys

SHIPPED = Path(__file__).parents[2] / "flows.toml"
FLOW = '[flows.x]\nrequest = "in/${user}"\nreply = "out/${user}"\n'


def flows(text: str, model: str | None = None) -> Flows:
    made, faults = parse(text, model=model)
    assert not faults, [str(fault) for fault in faults]
    assert made is not None
    return made


def flow(keys: str = "", before: str = "") -> Flow:
    return flows(f"{before}\n{FLOW}{keys}").flows["x"]


def message(payload: bytes = b"", **fields: Any) -> Message:
    return Message(
        **{"id": "0006", "topic": "in/ada", "payload": payload, "received_at": 0} | fields
    )


# loading


def test_the_shipped_file_is_without_fault_or_warning() -> None:
    made = flows(SHIPPED.read_text("utf-8"))
    assert list(made.flows) == [
        *("chat", "alarm", "coldstore", "morning", "home", "house", "speaker", "parse", "camera"),
        *("story", "rpc"),
    ]
    assert load(SHIPPED) == dataclasses.replace(made, source=str(SHIPPED))


def test_the_chat_flow_speaks_the_topics_of_the_nodejs_demo() -> None:
    chat = load(SHIPPED).flows["chat"]
    assert chat.match("chatgpt/request/ada") == {"user": "ada"}
    assert chat.reply is not None
    assert chat.reply.text == "chatgpt/response/${user}"
    assert chat.history is not None
    assert (chat.history.messages, chat.history.ttl) == (10, 86400)
    assert chat.ordered


def test_every_key() -> None:
    made = flows(
        """
[providers.local]
base_url = "http://localhost:11434/v1"
api_key_env = "LOCAL_KEY"
max_tokens_param = "max_completion_tokens"
[prices]
"gpt-5.4-mini" = { input = 1, output = 2.5 }
[flows.x]
request = ["in/${user}", "also/${user}"]
where = "qos > 0"
reply = "out/${user}"
error = "err/${user}"
stream = "stream/${user}"
status = "status/${user}"
conversation = "${clientid}"
input = "json"
prompt = "p ${payload.a}"
strip = "^a"
require = "b"
dedupe = "${clientid}/${payload.id}"
system = "s"
model = "local/llama/3"
fallback = "gpt-5.4"
temperature = 1
max_tokens = 100
timeout = "1m30s"
params = { top_p = 0.5 }
history = { messages = 4, tokens = 500, ttl = "1d", reset = "/new" }
format = "json"
qos = 2
retain = true
expiry = "1h"
deadline = "10m"
cooldown = "500ms"
limit = "10/min"
client_limit = "5/10s"
daily_tokens = 1000
on_error = "sorry ${user}"
allow_response_topics = ["reply/#"]
[[flows.x.tools]]
name = "t"
description = "d"
topic = "set/${room}"
payload = "${on}"
at_most_once = true
qos = 0
retain = true
parameters = { required = ["room"], properties = { room = {}, on = {} } }
"""
    )
    made_flow = made.flows["x"]
    assert made.providers == {
        "openai": Provider(name="openai"),
        "local": Provider(
            base_url="http://localhost:11434/v1",
            api_key_env="LOCAL_KEY",
            max_tokens_param="max_completion_tokens",
            name="local",
        ),
    }
    assert made.prices == {"gpt-5.4-mini": Price(1, 2.5)}
    assert made_flow.models == (ModelRef("local", "llama/3"), ModelRef("openai", "gpt-5.4"))
    assert [str(ref) for ref in made_flow.models] == ["local/llama/3", "gpt-5.4"]
    assert str(made_flow.error) == "err/${user}"
    assert (made_flow.timeout, made_flow.deadline, made_flow.cooldown) == (90, 600, 0.5)
    assert (made_flow.expiry, made_flow.qos, made_flow.retain) == (3600, 2, True)
    assert (made_flow.limit, made_flow.client_limit) == (Limit(10, 60), Limit(5, 10))
    assert made_flow.params == {"top_p": 0.5}
    assert made_flow.history is not None
    assert made_flow.history.reset == ("/new",)
    (tool,) = made_flow.tools
    assert tool.parameters["type"] == "object"
    assert (tool.at_most_once, tool.qos, tool.retain) == (True, 0, True)
    # Every key has its field; `asks` comes from [mcp.NAME].
    assert keys_of(Flow).keys() - {"asks"} == keys_of(FlowKeys).keys()


def test_defaults_of_the_program() -> None:
    made = flow()
    assert made.error is made.reply
    assert made.model == ModelRef("openai", "gpt-5.4-mini")
    assert (made.qos, made.retain, made.timeout, made.deadline) == (1, False, 60, 900)
    assert (made.input, made.format, str(made.dedupe)) == ("text", "text", "${id}")
    assert not made.ordered
    assert made.tools == () == made.fallback


def test_a_key_of_the_flow_wins_as_a_whole() -> None:
    before = '[defaults]\nmodel = "a"\nqos = 0\nhistory = { messages = 4, ttl = "1h" }'
    made = flow("history = { messages = 6 }", before)
    assert (made.model.model, made.qos) == ("a", 0)
    assert made.history is not None
    assert (made.history.messages, made.history.ttl) == (6, None)


@pytest.mark.parametrize(
    ("keys", "model", "expected"),
    [
        ("", "b", ModelRef("openai", "b")),
        ('model = "own"', "b", ModelRef("openai", "own")),
        ("", "Qwen/Qwen3", ModelRef("openai", "Qwen/Qwen3")),
        ("", "local/llama", ModelRef("local", "llama")),
        ("", "", ModelRef("openai", "a")),
    ],
)
def test_openai_model_goes_over_the_default(keys: str, model: str, expected: ModelRef) -> None:
    before = '[defaults]\nmodel = "a"\n[providers.local]\nbase_url = "http://x/v1"\n'
    assert flows(f"{before}{FLOW}{keys}", model).flows["x"].model == expected


def test_openai_model_that_ends_is_a_warning() -> None:
    _, faults = parse(FLOW, model="gpt-3.5-turbo")
    assert [(fault.warning, fault.line) for fault in faults] == [(True, None)]
    assert "OPENAI_MODEL" in str(faults[0])


def test_a_model_writes_itself_as_it_is_read() -> None:
    for text in ("a", "local/a", "local/a/b", "openai/a/b"):
        before = '[providers.local]\nbase_url = "http://x/v1"\n'
        ref = flow(f'model = "{text}"', before).model
        assert str(ref) == text


def test_load_raises_with_all_faults(tmp_path: Path) -> None:
    path = tmp_path / "flows.toml"
    path.write_text(FLOW + "qos = 3\nretain = 1\n", "utf-8")
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert [fault.line for fault in refused.value.faults] == [4, 5]
    assert refused.value.message.startswith(f"{path}:4: flows.x.qos: ")
    assert "1 more" in refused.value.message
    assert "\n" not in refused.value.message


def test_load_takes_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "flows.toml"
    path.write_bytes(b"\xef\xbb\xbf" + FLOW.replace("\n", "\r\n").encode())
    assert list(load(path).flows) == ["x"]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such file"), (b"\n\xff", ":2: is not UTF-8")]
)
def test_files_that_can_not_be_read(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "flows.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load(path)
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path)


def test_a_file_that_is_too_large_is_no_flows_file(tmp_path: Path) -> None:
    path = tmp_path / "flows.toml"
    path.write_bytes(b"#" * ((4 << 20) + 1))
    with pytest.raises(ConfigError, match="has more than 4 MB"):
        load(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_file_of_another_user_is_told_with_its_cure() -> None:
    """A checkout with umask 077, and the user 10001 of the container."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        path = Path(folder) / "flows.toml"
        path.write_text(FLOW)
        path.chmod(0o600)
        Path(folder).chmod(0o755)
        os.seteuid(10001)
        try:
            with pytest.raises(ConfigError, match="can't be read: permission denied") as caught:
                load(path)
        finally:
            os.seteuid(0)
    assert "(let user 10001 read it: chmod a+r flows.toml)" in str(caught.value)


# lines


TRICKY = r"""
# "[not.a.table]"
a = '''
b = 1
''''
[t.u] # comment
"q.x" = "it\"s # no comment"
d.e . f = [1, # ]
  { g = "}", h = [2] },
  '''
x = "
''',
]
[[l]]
x = 2024-01-01 00:00:00
[l.m]
y = { a.b = 1, "c" = { d = 2 } }
[[l]]
x = +1.5e3
[[l.n]]
z = true
[[l.n]]
z = '#'
"""


def paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    if path:
        yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from paths(item, (*path, name))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths(item, (*path, index))


def test_lines_of_tricky_toml() -> None:
    lines = scan(TRICKY)
    assert set(paths(tomllib.loads(TRICKY))) <= lines.lines.keys()
    rows = TRICKY.split("\n")
    for path, start in {
        ("a",): "a =",
        ("t", "u"): "[t.u]",
        ("t", "u", "d", "e", "f"): "d.e",
        ("t", "u", "d", "e", "f", 1, "h"): "  { g",
        ("l", 0): "[[l]]",
        ("l", 0, "m", "y", "c", "d"): "y =",
        ("l", 1, "x"): "x = +",
        ("l", 1, "n", 1, "z"): "z = '#'",
    }.items():
        assert rows[lines.lines[path] - 1].startswith(start), path


def test_the_shipped_file_has_a_line_for_every_key() -> None:
    text = SHIPPED.read_text("utf-8")
    assert set(paths(tomllib.loads(text))) <= scan(text).lines.keys()


# the schema for editors


def test_the_schema_takes_the_shipped_file() -> None:
    schema = json_schema()
    jsonschema_rs.Draft7Validator(schema)  # it is one
    jsonschema_rs.validate(schema, tomllib.loads(SHIPPED.read_text("utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        "modle = 1",
        "[flow.x]",
        "[flows.x]\nrequst = 'a'",
        "[flows.x]\nqos = 3",
        "[flows.x]\ntimeout = 5",
        "[flows.x]\nlimit = '10'",
        "[flows.x]\nhistory = { tll = '1h' }",
        "[[flows.x.tools]]\nnam = 'x'",
        "[providers.x]\nurl = 'x'",
        "[prices.x]\ninput = 1",
    ],
)
def test_the_schema_refuses(text: str) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(json_schema(), {"flows": {}} | tomllib.loads(text))


# whatever stands there


VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "a", "a/${x}", "${", "#", "5m", "(", "a/b", "1/s", "is_num(payload.a)"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "messages", "type", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)
KEYS = st.sampled_from([*keys_of(FlowKeys)])


@given(
    st.dictionaries(KEYS, VALUES, max_size=6),
    st.dictionaries(st.sampled_from("xy"), st.dictionaries(KEYS, VALUES, max_size=6) | VALUES),
)
@settings(deadline=None)
def test_parse_never_raises(defaults: Any, tables: Any) -> None:
    text = f"defaults = {_toml(defaults)}\nflows = {_toml(tables)}\n"
    made, faults = parse(text)
    assert (made is None) == any(not fault.warning for fault in faults)
    for fault in faults:
        assert fault.message


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return (
                "{" + ", ".join(f'"{name}" = {_toml(item)}' for name, item in value.items()) + "}"
            )
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return f"'{value}'"
    return repr(value)
