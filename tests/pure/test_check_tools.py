"""Faults of tools that wait, ask and check: each with its line, its key and what to do."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from service.flows import parse

X = '[flows.x]\nrequest = "in/${user}"\nreply = "out/${user}"\n'
TOOL = '[[flows.x.tools]]\nname = "t"\ndescription = "d"\ntopic = "dev/${room}/set"\n'
ROOM = 'parameters = { required = ["room"], properties = { room = { type = "string" } } }\n'
T = X + TOOL + ROOM
CONFIRM = 'confirm = { ask = "ask/${user}", answer = "said/${user}", pin_env = "PIN" }'
DEGREES = TOOL + (
    'parameters = { required = ["room"], properties = { room = {}, to = { type = "number" } } }\n'
)


def faults_of(text: str, environ: Mapping[str, str] | None = None) -> list[tuple[int | None, str]]:
    _, faults = parse(text, environ=environ)
    return [(fault.line, str(fault)) for fault in faults]


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        # topics on which nobody else can answer
        (T + 'answer = "$SYS/brokers"', 9, "a topic of the broker", "not begin with $"),
        (T + 'answer = "heard/${room}/+"', 9, "one publishes to a plain topic", ""),
        (T + 'answer = "dev/${room}/set"', 9, "our own message would be the answer", "differ"),
        (T + 'answer = "out/${user}"', 9, "can be reached by flows.x.reply", "differ in a level"),
        (T + 'answer = "dev/${rom}/state"', 9, "${rom} stands for nothing", "${room}"),
        (
            T + 'confirm = { ask = "ask/${user}", answer = "ask/${user}" }',
            9,
            "the question would answer itself",
            "differ in a level",
        ),
        (T + 'confirm = { ask = "ask", answer = "in/${user}" }', 9, "is a request topic", "asked"),
        # keys that go with others
        (T + 'match = "${payload.id}"', 9, "match: does nothing without answer", "where does it"),
        (T + 'answer_timeout = "3s"', 9, "does nothing without answer", ""),
        (T + "response_topic = true", 9, "response_topic: does nothing without answer", ""),
        (
            X + TOOL.replace("topic =", "read =") + ROOM + 'answer = "a/b"',
            9,
            "answer: does nothing without topic",
            "a command",
        ),
        # words
        (T + 'hours = "07:00-22:00"', 9, "has no time zone", '"07:00-22:00 UTC"'),
        (T + 'hours = "07:00-22:00 Berlin"', 9, '"Berlin" is no time zone', "Europe/Berlin"),
        (T + 'hours = "all day"', 9, "hours are such as", "Europe/Berlin"),
        (T + 'hours = "07:00-07:00 UTC"', 9, "begins and ends at the same time", ""),
        (T + 'rate = "3"', 9, '"3" can\'t be used', "3/min"),
        (T + 'answer = "a"\nmatch = "x = y"', 10, "reads nothing of what the device says", ""),
        (T + 'answer = "a"\nmatch = "${payload.id} ="', 10, "nothing to compare with", ""),
        (T + 'verify = { expect = "${payload} = 1" }', 9, "needs one of read and answer", "read:"),
        (
            T + 'verify = { expect = "${payload} = 1", read = "a", answer = "b" }',
            9,
            "needs one of read and answer",
            "",
        ),
        (T + 'confirm = { ask = "a" }', 9, "answer: is missing", ""),
        (T + 'confirm = { ask = "a", answer = "b", timeout = "0s" }', 9, "confirm.timeout", ""),
        # bounds
        (
            T + 'bounds = { argument = "to", read = "a", max_change = 1 }',
            9,
            '"to" is no argument of t',
            "its arguments: room",
        ),
        (
            T + 'bounds = { argument = "room", read = "a", max_change = 1 }',
            9,
            '"room" is no number',
            'type = "number"',
        ),
        (
            X + DEGREES + 'bounds = { argument = "to", read = "a", max_change = 1 }',
            9,
            '"to" may be missing from a call',
            'required = ["to"',
        ),
        # replies
        (
            X.replace("out/${user}", "dev/${user}/set") + TOOL + ROOM,
            3,
            'can reach "dev/${room}/set" of the tool t',
            "differ in a level",
        ),
    ],
)  # fmt: skip
def test_each_fault_is_told_with_its_line_and_its_cure(
    text: str, line: int, says: str, hint: str
) -> None:
    found = faults_of(text)
    assert len(found) == 1, found
    assert found[0][0] == line, found
    assert says in found[0][1], found
    assert hint in found[0][1], found


def guarded(guard: str, *, topic: str = "dev/${room}/set", more: str = ROOM) -> str:
    """A second tool, `g`."""
    tool = f'[[flows.x.tools]]\nname = "g"\ndescription = "d"\ntopic = "{topic}"\n'
    return f"{tool}{more}{guard}\n"


def flow_y(keys: str) -> str:
    return f'[flows.y]\nrequest = "y/in/${{user}}"\nreply = "y/out/${{user}}"\n{keys}\n'


PLAIN_CONFIRM = CONFIRM.replace(', pin_env = "PIN"', "")
AT_DOOR = guarded(PLAIN_CONFIRM, topic="dev/door/set", more="")
KEEPS = flow_y('recent = { topic = "said/#" }\nprompt = "${recent}"')
ENUM = 'parameters = { required = ["room"], properties = { room = { enum = [%s] } } }\n'
SERVER = """[mcp.plant]
url = "http://127.0.0.1:9/mcp"
confirm = { ask = "plant/ask", answer = "%s" }
[flows.z]
request = "z/in"
reply = "z/out"
tools_from = ["plant"]
"""


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        # ways round a guard
        (T + guarded(PLAIN_CONFIRM), 7, "a way round its confirm", "give t the same confirm"),
        (T + guarded('rate = "3/min"'), 7, "a way round its rate", ""),
        (T + guarded('flow_rate = "3/min"'), 7, "a way round its flow_rate", ""),
        (T + guarded('hours = "07:00-22:00 UTC"'), 7, "a way round its hours", ""),
        (
            T + guarded('rate = "3/min"\nhours = "07:00-22:00 UTC"'),
            7,
            "of the tool g: a way round its rate and hours",
            "the same rate and hours; or keep the two apart",
        ),
        (T + AT_DOOR, 7, "way round", ""),
        (T + guarded(PLAIN_CONFIRM, topic="$delayed/5/dev/a/set", more=""), 7, "way round", ""),
        (
            X + TOOL.replace("dev/", "$delayed/1/dev/") + ROOM + guarded(PLAIN_CONFIRM),
            7,
            "way round",
            "",
        ),
        (
            T + flow_y("") + guarded(PLAIN_CONFIRM).replace("flows.x", "flows.y"),
            7,
            "of the tool g of flow y: a way round its confirm",
            "",
        ),
        (
            X + TOOL + ENUM % '"hall", "door"' + AT_DOOR,
            7,
            "way round its confirm",
            "by an enum",
        ),
        (
            T + 'payload = "${room}"\n' + guarded('payload = "UNLOCK"\n' + PLAIN_CONFIRM),
            7,
            "way round its confirm",
            "a fixed payload in each",
        ),
        # who else could answer
        (
            X + 'allow_response_topics = "said/#"\n' + TOOL + ROOM + PLAIN_CONFIRM,
            10,
            'by flows.x.allow_response_topics, "said/#": what a device wants to have there is not',
            "narrow allow_response_topics",
        ),
        (
            X + 'allow_response_topics = "dev/#"\n' + TOOL + ROOM + 'answer = "dev/${room}/state"',
            10,
            "what a device wants to have there is not published",
            "narrow",
        ),
        (
            X
            + 'allow_response_topics = "dev/#"\n'
            + TOOL
            + ROOM
            + 'verify = { expect = "${payload} = 1", answer = "dev/${room}/state" }',
            10,
            "what a device wants to have there is not published",
            "narrow",
        ),
        (
            T + 'answer = "horn/set"\n' + guarded("", topic="horn/set", more=""),
            9,
            "can be reached by flows.x.tools[1].topic",
            "",
        ),
        (
            flow_y('allow_response_topics = "plant/#"') + SERVER % "plant/said",
            7,
            "mcp.plant.confirm.answer",
            "narrow allow_response_topics",
        ),
        (
            flow_y('status = "plant/${user}"') + SERVER % "plant/said",
            7,
            "can be reached by flows.y.status",
            "differ in a level",
        ),
        (
            T + PLAIN_CONFIRM + '\nanswer = "said/${user}"',
            10,
            "what a person says to a question would be taken for the device's answer",
            "differ in a level",
        ),
        (
            T + PLAIN_CONFIRM + '\nverify = { expect = "${payload} = 1", answer = "said/x" }',
            10,
            "would be taken for the device's answer",
            "",
        ),
        (
            T + 'answer = "plant/said"\n' + SERVER % "plant/said",
            9,
            'overlaps with mcp.plant.confirm.answer, "plant/said"',
            "",
        ),
        # who else could hear a PIN
        (T + CONFIRM.replace("said/", "in/"), 9, "a PIN that is said there would be stored", ""),
        (
            T + CONFIRM + "\n" + KEEPS,
            9,
            'overlaps with flows.y.recent.topic, "said/#": a PIN',
            "differ in a level",
        ),
        (
            T + CONFIRM + "\n" + flow_y("").replace("y/in", "said"),
            9,
            "overlaps with flows.y.request",
            "",
        ),
        (
            T + CONFIRM + "\n" + guarded("", more="", topic="said/x").replace("topic", "read"),
            9,
            "a PIN that is said there would be stored, and told to a model",
            "",
        ),
        (
            T + PLAIN_CONFIRM + "\n" + KEEPS,
            9,
            'overlaps with flows.y.recent.topic, "said/#"',
            "is kept, and told to a model",
        ),
        # what is no command
        (
            T + PLAIN_CONFIRM.replace("ask/${user}", "horn/set")
            + "\n" + guarded("", topic="horn/set", more=""),
            9,
            "the question would be a command",
            "differ in a level",
        ),
        (
            T + PLAIN_CONFIRM.replace("ask/${user}", "dev/${user}/set"),
            9,
            "the question would be a command",
            "",
        ),
        (
            X.replace("out/${user}", "$delayed/1/dev/${user}/set") + TOOL + ROOM,
            3,
            'can reach "dev/${room}/set" of the tool t',
            "differ in a level",
        ),
        # what does nothing
        (
            X + TOOL.replace("topic =", "read =") + ROOM + 'rate = "1/min"',
            9,
            "rate: does nothing without topic",
            'limit = "20/min"',
        ),
        (
            X + TOOL.replace("topic =", "read =") + ROOM + 'flow_rate = "1/min"',
            9,
            "flow_rate: does nothing without topic",
            'limit = "20/min"',
        ),
        (
            X + TOOL.replace("topic =", "read =") + ROOM + 'hours = "07:00-22:00 UTC"',
            9,
            "hours: does nothing without topic",
            "leave it out",
        ),
        # topics that no device may use
        (T + 'answer = "emqx-gpt/reply/x"', 9, "internal topic of the replies", "choose narrower"),
        (T + 'answer = "emqx-gpt/${room}/x"', 9, "internal topic of the replies", ""),
        (
            T + 'verify = { expect = "${payload} = 1", answer = "emqx-gpt/reply/x" }',
            9,
            "internal topic of the replies",
            "",
        ),
        (
            T + 'verify = { expect = "${payload} = 1", read = "emqx-gpt/reply/x" }',
            9,
            "internal topic of the replies",
            "",
        ),
        (
            T + 'confirm = { ask = "emqx-gpt/reply/x", answer = "said/${user}" }',
            9,
            "can reach the internal topic of the replies",
            "",
        ),
        (
            T + 'confirm = { ask = "ask", answer = "emqx-gpt/reply/${user}" }',
            9,
            "internal topic of the replies",
            "",
        ),
        (SERVER % "emqx-gpt/reply/x", 3, "internal topic of the replies", ""),
    ],
)  # fmt: skip
def test_topics_of_tools_are_nobody_else_s(text: str, line: int, says: str, hint: str) -> None:
    test_each_fault_is_told_with_its_line_and_its_cure(text, line, says, hint)


BOUNDED = 'bounds = { argument = "to", read = "dev/now", max_change = 1 }\n'


def test_a_tool_without_bounds_is_a_way_round_them() -> None:
    far = DEGREES.replace('required = ["room"]', 'required = ["room", "to"]')
    [(line, text)] = faults_of(X + far + far.replace('"t"', '"g"') + BOUNDED)
    assert (line, "a way round its bounds" in text) == (7, True), text


@pytest.mark.parametrize(
    "text",
    [
        T + PLAIN_CONFIRM + "\n" + guarded(PLAIN_CONFIRM),  # the same guard
        T + 'rate = "9/min"\n' + guarded('rate = "3/min"'),  # with another figure
        T + guarded(PLAIN_CONFIRM, topic="door/${room}/set"),
        X + TOOL + ENUM % '"hall"' + AT_DOOR,
        X + TOOL + ENUM % '"hall"' + guarded(PLAIN_CONFIRM, more=ENUM % '"door"'),
        T + 'payload = "LOCK"\n' + guarded('payload = "UNLOCK"\n' + PLAIN_CONFIRM),
        T + CONFIRM + "\n" + guarded(PLAIN_CONFIRM, topic="gate/${room}/set"),  # one answer topic
        # what devices say may be kept, and looked up
        T
        + 'answer = "dev/${room}/state"\n'
        + guarded("", more="", topic="dev/a/state").replace("topic", "read")
        + flow_y('recent = { topic = "dev/+/state" }\nprompt = "${recent}"'),
    ],
)
def test_what_is_told_apart_is_fine(text: str) -> None:
    assert faults_of(text) == []


def test_many_texts_of_an_enum_are_any_text() -> None:
    many = ", ".join(f'"r{number}"' for number in range(200))
    [(_, text)] = faults_of(X + TOOL + ENUM % many + AT_DOOR)
    assert "way round" in text


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "PIN is not set"),
        ({"PIN": "12"}, "PIN is no PIN of digits"),
        ({"PIN": "secret"}, "3 to 12 digits"),
        ({"PIN": "4711"}, None),
        (None, None),  # who only reads the file
    ],
)
def test_a_pin_has_to_be_there(environ: Mapping[str, str] | None, says: str | None) -> None:
    found = faults_of(T + CONFIRM, environ)
    if says is None:
        assert found == []
    else:
        [(line, text)] = found
        assert (line, says in text) == (9, True), text
        assert "secret" not in text.replace("no secret", "")
