"""What small devices send and can take: charsets, NULs, pictures, loudspeakers, small buffers."""

from __future__ import annotations

import base64
import itertools

import httpx
import orjson
import pytest

from tests.fakes.model import ok
from tests.rig import WEBHOOK_AUTH, message, rig

_numbers = itertools.count(1)
PANEL = """
[flows.panel]
request = "panels/${panel}/ask"
reply = "panels/${panel}/say"
"""
LONG = "A very long answer. " * 60
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(200)


async def hook(house, topic: str, payload: str | bytes, **more) -> None:
    """What EMQX's rule would post."""
    body = {"id": f"{next(_numbers):032X}", "topic": topic, "qos": 1, **more}
    if isinstance(payload, bytes):
        body["payload_base64"] = base64.b64encode(payload).decode()
    else:
        body["payload"] = payload
    async with httpx.AsyncClient(headers=WEBHOOK_AUTH) as http:
        answer = await http.post(f"{house.url}/webhook", json=body)
    assert answer.status_code == 202, answer.text


SENT = [  # keys, payload, pub_props, what the model is asked
    ("", "hello\0", {}, "hello"),
    ("", "\ufeffhello", {}, "hello"),
    ('prompt = "It is ${payload.t} °C"', '{"t": 41}\0', {}, "It is 41 °C"),
    ('prompt = "It is ${payload.t} °C"', '\ufeff{"t": 41}', {}, "It is 41 °C"),
    ('input = "json"', '{"t": 41}\0', {}, '{"t": 41}'),
    ('charset = "gbk"', "打开灯".encode("gbk"), {}, "打开灯"),
    ("", "打开灯".encode("gbk"), {"Content-Type": "text/plain; charset=GBK"}, "打开灯"),
    ('charset = "latin-1"', "Küche".encode("latin-1"), {}, "Küche"),
    ('strip = "(.*hey robot)"\nrequire = "hey robot"', "Hey Robot, go.", {}, "go."),
]


@pytest.mark.parametrize(("keys", "payload", "props", "asked"), SENT)
async def test_what_devices_send_is_read(database, keys, payload, props, asked):
    async with rig(database, flows=PANEL + keys) as house, house.mqtt("panels/1/say") as panel:
        await hook(house, "panels/1/ask", payload, pub_props=props)
        assert (await message(panel))[1] == f"echo: {asked}".encode()
        assert [call.text for call in house.model.calls] == [asked]


async def test_dedupe_reads_a_payload_that_ends_in_nul(database):
    flows = PANEL + 'dedupe = "${payload.id}"'
    async with rig(database, flows=flows) as house, house.mqtt("panels/1/say") as panel:
        await hook(house, "panels/1/ask", '{"id": 7}\0')
        await hook(house, "panels/1/ask", '{"id": 7}')
        await message(panel)
        await house.ended(1)
        assert len(house.model.calls) == 1


async def test_a_rule_brings_the_bytes_of_another_charset(database):
    """The whole way, through the broker's rule."""
    flows = PANEL + 'charset = "gbk"'
    async with rig(database, flows=flows) as house, house.mqtt("panels/1/say") as panel:
        await panel.publish("panels/1/ask", "打开灯".encode("gbk"))
        assert (await message(panel))[1] == "echo: 打开灯".encode()


PICTURES = [
    b"data:image/jpeg;base64," + base64.b64encode(JPEG),
    base64.encodebytes(JPEG),
    base64.urlsafe_b64encode(JPEG).rstrip(b"="),
    base64.b64encode(JPEG) + b"\0",
]


@pytest.mark.parametrize("payload", PICTURES)
async def test_pictures_in_base64(database, payload):
    flows = PANEL + 'input = "image"\nprompt = "What is it?"'
    async with rig(database, flows=flows) as house, house.mqtt("panels/1/say") as panel:
        await hook(house, "panels/1/ask", payload)
        await message(panel)
        _, picture = house.model.calls[0].messages[-1]["content"]
        url = picture["image_url"]["url"]
        assert url == "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()


async def test_a_loudspeaker_says_plain_sentences_and_remembers_them(database):
    flows = PANEL + "speak = true\nhistory = { messages = 10 }"
    async with rig(database, flows=flows) as house, house.mqtt("panels/1/say") as panel:
        house.model.script(ok("**Tomorrow**:\n\n1. *sunny* ☀️\n2. `22 °C`"))
        await panel.publish("panels/1/ask", b"weather?")
        assert (await message(panel))[1] == "Tomorrow: sunny. 22 °C.".encode()
        await panel.publish("panels/1/ask", b"and?")
        await message(panel)
        assert "Tomorrow: sunny. 22 °C." in str(house.model.calls[1].messages)


async def test_a_long_answer_is_cut_at_a_sentence(database):
    flows = PANEL + "max_length = 100"
    async with rig(database, flows=flows) as house, house.mqtt("panels/1/say") as panel:
        house.model.script(ok(LONG))
        await panel.publish("panels/1/ask", b"tell")
        said = (await message(panel))[1].decode()
        assert len(said.encode()) <= 100
        assert said.startswith("A very long answer. A very long answer.")


async def test_numbered_pieces_come_in_order(any_database):
    flows = PANEL + "chunk = 200"
    async with rig(any_database, flows=flows) as house, house.mqtt("panels/+/say") as panel:
        house.model.behave(lambda body: LONG)
        for number in range(20):
            await panel.publish(f"panels/{number}/ask", b"tell")
        heard: dict[str, list[bytes]] = {}
        for _ in range(20 * 7):
            topic, payload = await message(panel)
            heard.setdefault(topic, []).append(payload)
        assert len(heard) == 20
        for pieces in heard.values():
            assert all(len(piece) <= 200 for piece in pieces)
            assert [piece.split(b" ")[0] for piece in pieces] == [b"%d/7" % n for n in range(1, 8)]
            text = b"".join(piece.partition(b" ")[2] for piece in pieces)
            assert text.decode().strip() == LONG.strip()


async def test_pieces_of_a_stream_fit_as_well(database):
    flows = PANEL + 'chunk = 160\nstream = "panels/${panel}/stream"'
    topics = ("panels/1/say", "panels/1/stream")
    async with rig(database, flows=flows) as house, house.mqtt(*topics) as panel:
        house.model.script(ok("好" * 300))
        await panel.publish("panels/1/ask", b"tell")
        streamed, last = "", b""
        while not last.startswith(b"6/6 "):
            topic, last = await message(panel)
            assert len(last) <= 160
            if topic.endswith("stream"):
                streamed += orjson.loads(last)["delta"]
        assert streamed == "好" * 300


async def test_a_spoken_stream_is_the_spoken_reply(database):
    flows = PANEL + 'speak = true\nstream = "panels/${panel}/stream"'
    topics = ("panels/1/say", "panels/1/stream")
    async with rig(database, flows=flows) as house, house.mqtt(*topics) as panel:
        house.model.script(ok("It is **sunny**. And *warm*. 😀 Bye"))
        await panel.publish("panels/1/ask", b"weather?")
        streamed = ""
        while True:
            topic, payload = await message(panel)
            if topic.endswith("say"):
                break
            streamed += orjson.loads(payload)["delta"]
        assert streamed == payload.decode() == "It is sunny. And warm. Bye"


async def test_failures_are_told_in_the_language_of_the_question(database):
    flows = PANEL + 'limit = "1/h"\nhistory = { reset = ["forget that", "忘记"] }'
    async with rig(database, flows=flows) as house, house.mqtt("panels/+/say") as panel:
        await panel.publish("panels/1/ask", b"one")
        await message(panel)
        await panel.publish("panels/1/ask", "二".encode())
        assert (await message(panel))[1] == "请求太多，请稍等一会儿。".encode()
        await panel.publish("panels/1/ask", "Wie spät ist es?".encode())
        assert (await message(panel))[1] == b"Zu viele Anfragen, bitte kurz warten."
        await panel.publish("panels/1/ask", b"three")
        assert (await message(panel))[1] == b"No answer: too many requests, wait a little."


async def test_failures_are_told_in_the_words_of_the_flow(database):
    flows = PANEL + 'limit = "1/h"\nmessages = { limit = "Langsam!" }\nchunk = 64'
    async with rig(database, flows=flows) as house, house.mqtt("panels/+/say") as panel:
        await panel.publish("panels/1/ask", b"one")
        assert (await message(panel))[1] == b"1/1 echo: one"
        await panel.publish("panels/1/ask", b"two")
        assert (await message(panel))[1] == b"1/1 Langsam!"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Forget that.", b"OK, our conversation so far is forgotten."),
        ("忘记。\0", "好的，之前的对话我已经忘记了。".encode()),
    ],
)
async def test_reset_words_as_speech_recognition_writes_them(database, said, answer):
    flows = PANEL + 'history = { reset = ["forget that", "忘记"] }'
    async with rig(database, flows=flows) as house, house.mqtt("panels/+/say") as panel:
        await panel.publish("panels/1/ask", b"My name is Ada.")
        await message(panel)
        await panel.publish("panels/1/ask", said.encode())
        assert (await message(panel))[1] == answer
        await panel.publish("panels/1/ask", b"Who am I?")
        await message(panel)
        assert "Ada" not in str(house.model.calls[1].messages)
        assert len(house.model.calls) == 2


THOUGHT = [  # what the model streams, and what is seen of it
    ("<think>The user greets.</think>Hello Ann. 1 <", "Hello Ann. 1 <"),
    ("Hello Ann.<|im_end|>", "Hello Ann."),
    ("The user greets.\n</think>\n\nHello Ann.", "Hello Ann."),
    ("Hello Ann. No tags at all.", "Hello Ann. No tags at all."),
]


@pytest.mark.parametrize("model", ["m", "qwq-32b"])
@pytest.mark.parametrize(("text", "seen"), THOUGHT)
async def test_a_stream_shows_all_of_the_answer_and_no_reasoning(database, text, seen, model):
    flows = PANEL + f'model = "{model}"\nstream = "panels/${{panel}}/stream"'
    topics = ("panels/1/say", "panels/1/stream")
    async with rig(database, flows=flows) as house, house.mqtt(*topics) as panel:
        house.model.script(ok(text))
        await panel.publish("panels/1/ask", b"hi")
        runs: dict[int, str] = {}
        while True:
            topic, payload = await message(panel)
            if topic.endswith("say"):
                break
            piece = orjson.loads(payload)
            runs[piece["run"]] = runs.get(piece["run"], "") + piece["delta"]
        assert payload.decode() == seen
        assert runs[max(runs)] == seen
        (ended,) = await house.ended(1)
        whole = (await house.http.get(f"/requests/{ended['id']}")).json()
        thought = "The user greets." if "user greets" in text else None
        assert whole["reasoning"] == thought
