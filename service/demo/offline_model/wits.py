"""What the offline model answers: the same request always gets the same answer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.demo.offline_model import phrases
from service.demo.offline_model.chatrequest import ChatRequest, Message
from service.demo.offline_model.fill import fill
from service.demo.offline_model.reading import words
from service.demo.offline_model.toolcalls import Call, Choice, choose, forced

# All that is read of a text, so that a huge one costs no more than a page.
_READ = 4000
_FAILED = re.compile(r"\b(?:error|failed|failure|refused|timed out)\b|失败|错误", re.IGNORECASE)

# The one long answer, so that there is something to stream.
_STORY = (
    "I know only one story, but it fits everybody; today it is about {0}. "
    "Once upon a time, at the end of a long day, all the machines of the house fell silent. "
    "Only one small message was still on its way, from topic to topic, looking for an answer. "
    "It met {0}, and asked: “Do you know where I belong?” "
    "“Stay here,” said {0}, “somebody will subscribe to you in the morning.” "
    "So the message was retained, and slept well. Good night."
)
_STORY_ZH = (
    "我只会讲一个故事，不过谁都可以当主角，今天的主角是{0}。"
    "从前，在漫长的一天结束的时候，家里的机器都安静了下来。"
    "只有一条小小的消息还在路上，从一个主题走到另一个主题，寻找它的答案。"
    "它遇见了{0}，问道：“你知道我该去哪儿吗？”"
    "“留在这儿吧，”{0}说，“明天早上会有人订阅你的。”"
    "于是这条消息被保留了下来，睡得很香。晚安。"
)


@dataclass(frozen=True)
class Answer:
    """A text, or the tools to call."""

    text: str | None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class _Talk:
    """A request, taken apart: what is asked now, what came before, which tools answered."""

    now: Message
    earlier: tuple[Message, ...]
    called: tuple[Message, ...]

    @property
    def text(self) -> str:
        return self.now.text[:_READ]

    @property
    def chinese(self) -> bool:
        return phrases.is_chinese(self.text)

    @property
    def name(self) -> str | None:
        told = [each.text[:_READ] for each in (*self.earlier, self.now) if each.role == "user"]
        return phrases.last_name(told)


def answer(request: ChatRequest) -> Answer:
    """Call the tools that fit, else say what was understood, as JSON if that is wanted."""
    talk = _taken_apart(request.messages)
    choice = Choice()
    if request.tools and not talk.called and request.tool_choice != "none":
        choice = _choice(request, talk)
        if choice.calls:
            return Answer(None, choice.calls)
    said = _said(talk, choice, [tool.name for tool in request.tools])
    if not request.format:
        return Answer(_marked(said, talk.chinese))
    source = "\n".join(filter(None, (talk.text, *map(str, talk.now.pictures))))
    return Answer(_document(request, said, f"{source}\n{said}" if talk.called else source))


def _taken_apart(messages: Sequence[Message]) -> _Talk:
    at = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
    now = messages[at] if at >= 0 else Message("user", "")
    spoken = tuple(
        each for each in messages[: max(at, 0)] if each.role in ("user", "assistant") and each.text
    )
    after = tuple(messages[at + 1 :]) if at >= 0 else ()
    return _Talk(now, spoken, after if any(each.role == "tool" for each in after) else ())


def _choice(request: ChatRequest, talk: _Talk) -> Choice:
    before = "\n".join(each.text[:_READ] for each in talk.earlier)
    match request.tool_choice:
        case {"function": {"name": str(name)}}:
            tool = next((each for each in request.tools if each.name == name), request.tools[0])
            return Choice((forced(talk.text, tool, before),))
    # A name is remembered, not looked up; and an alarm is told, not acted upon.
    known = phrases.asks_name(talk.text) or phrases.alarm(talk.text)
    choice = Choice() if known else choose(talk.text, request.tools, before)
    if request.tool_choice == "required" and not choice.calls:
        return Choice((forced(talk.text, request.tools[0], before),))
    return choice


def _marked(said: str, chinese: bool) -> str:
    return f"（离线模型）{said}" if chinese else f"(offline model) {said}"


def _said(talk: _Talk, choice: Choice, tools: Sequence[str]) -> str:
    if talk.called:
        return _outcome(talk)
    if choice.unknown_place:
        return _unreachable(choice, talk.chinese)
    if talk.now.pictures or talk.now.links:
        return _seen(talk)
    if reading := phrases.alarm(talk.text):
        return _warning(reading, talk.chinese)
    if about := phrases.story_about(talk.text):
        return _STORY_ZH.format(about) if talk.chinese else _STORY.format(about)
    if not talk.text.strip():
        return "Your message is empty."
    return _reply_zh(talk, tools) if talk.chinese else _reply(talk, tools)


def _reply(talk: _Talk, tools: Sequence[str]) -> str:
    count, name = len(talk.earlier), talk.name
    memory = "This is the first message of our conversation."
    if count:
        memory = f"I remember {count} earlier message{'' if count == 1 else 's'}."
    if phrases.asks_name(talk.text):
        known = f"Your name is {name}." if name else "You have not told me your name yet."
        return f"{known} {memory}"
    heard = f"I understood: {_quoted(talk.text)}"
    if tools and phrases.topics(talk.text):
        heard += f" None of my tools ({', '.join(tools)}) fits that."
    if told := phrases.told_name(talk.text):
        return f"Nice to meet you, {told}! {heard} {memory}"
    return f"{name}, {heard} {memory}" if name else f"{heard} {memory}"


def _reply_zh(talk: _Talk, tools: Sequence[str]) -> str:
    count, name = len(talk.earlier), talk.name
    memory = f"我记得之前的{count}条消息。" if count else "这是我们对话的第一条消息。"
    if phrases.asks_name(talk.text):
        return (f"你叫{name}。" if name else "你还没有告诉我你的名字。") + memory
    heard = f"我听到的是：“{phrases.shorten(talk.text)}”。"
    if tools and phrases.topics(talk.text):
        heard += f"我的工具（{'、'.join(tools)}）都不适合。"
    if told := phrases.told_name(talk.text):
        return f"很高兴认识你，{told}！{heard}{memory}"
    return f"{name}，{heard}{memory}" if name else heard + memory


def _quoted(text: str) -> str:
    """The text as the end of a sentence."""
    said = phrases.shorten(text)
    return f"“{said}”" if said.endswith((".", "!", "?", "…")) else f"“{said}”."


def _warning(reading: phrases.Alarm, chinese: bool) -> str:
    sensor, unit = reading.sensor, reading.unit
    over = round(reading.value - reading.limit, 6)
    value, limit = f"{reading.value:.12g} {unit}".strip(), f"{reading.limit:.12g} {unit}".strip()
    if chinese:
        if over <= 0:
            return f"传感器{sensor}读数{value}，没有超过{limit}的上限。"
        return f"请注意：传感器{sensor}读数{value}，超过上限{limit}，请马上检查！"
    if over <= 0:
        return f"Sensor {sensor} reads {value}, which is within its limit of {limit}."
    return (
        f"Attention please: sensor {sensor} reads {value}, "
        f"{f'{over:.12g} {unit}'.strip()} over its limit of {limit}, so please check it now!"
    )


def _seen(talk: _Talk) -> str:
    asked = phrases.shorten(talk.text)
    if talk.chinese:
        parts = [f"我收到一张图片：{each}。" for each in talk.now.pictures]
        parts += [f"我离线，打不开 {phrases.shorten(each, 80)}。" for each in talk.now.links]
        return "".join(parts) + f"你的问题是：“{asked}”。"
    parts = [f"I got a picture: {each}." for each in talk.now.pictures]
    links = [phrases.shorten(each, 80) for each in talk.now.links]
    parts += [f"I am offline and can't open {each}." for each in links]
    return " ".join([*parts, f"You asked: {_quoted(talk.text)}"] if asked else parts)


def _unreachable(choice: Choice, chinese: bool) -> str:
    place = choice.unknown_place or ""
    if chinese:
        known = "、".join(phrases.in_chinese(each) for each in choice.known_places)
        return f"我控制不了{phrases.in_chinese(place)}里的设备，只能控制：{known}。"
    return f"I can't reach that in the {place}; I can in: {', '.join(choice.known_places)}."


def _outcome(talk: _Talk) -> str:
    """What was called, and what came of it."""
    results = {each.call_id: each.text for each in talk.called if each.role == "tool"}
    done, read, failed = [], [], []
    for id_, name, arguments in (call for each in talk.called for call in each.calls):
        result = phrases.shorten(results.get(id_, ""))
        what = _described(name, arguments, talk.chinese)
        if _is_failure(result):
            failed.append(f"{what} ({result})")
        elif words(name)[:1] in (["get"], ["read"], ["query"], ["check"], ["list"], ["show"]):
            read.append(f"{what}: {result}")
        else:
            done.append(f"{what} ({result})" if result not in ("", "done") else what)
    if talk.chinese:
        groups = (("已完成：", done), ("查到：", read), ("没有成功：", failed))
        return "".join(f"{head}{'；'.join(items)}。" for head, items in groups if items)
    groups = (("Done: ", done), ("I looked it up: ", read), ("That did not work: ", failed))
    return " ".join(f"{head}{'; '.join(items)}." for head, items in groups if items)


def _is_failure(result: str) -> bool:
    try:
        told = json.loads(result)
    except ValueError:
        return bool(_FAILED.search(result))
    if isinstance(told, dict):
        return bool(told.get("error")) or told.get("ok") is False
    return isinstance(told, str) and bool(_FAILED.search(told))


def _described(name: str, arguments: str, chinese: bool) -> str:
    """A call in words: set_light {"room": "kitchen", "on": true} → kitchen light on."""
    try:
        given = json.loads(arguments)
    except ValueError:
        given = {}
    verbs = ("set", "get", "read", "query", "check", "list", "show", "control")
    thing = " ".join(word for word in words(name) if word not in verbs) or name
    places, states, details = [], [], []
    for key, value in (given if isinstance(given, dict) else {}).items():
        if isinstance(value, str) and phrases.places(value):
            places.append(phrases.in_chinese(value) if chinese else value)
        elif isinstance(value, bool) and key in ("on", "power", "enabled"):
            states.append(("开" if value else "关") if chinese else ("on" if value else "off"))
        else:
            label = phrases.in_chinese(key) if chinese else key.replace("_", " ")
            details.append(f"{label} {_plain(value, chinese)}")
    if chinese:
        head = "".join([*places, phrases.in_chinese(thing), *states])
        return "，".join([head, *details])
    return ", ".join([" ".join([*places, thing, *states]), *details])


def _plain(value: Any, chinese: bool) -> str:
    if isinstance(value, str):
        return phrases.in_chinese(value) if chinese else value
    return json.dumps(value, ensure_ascii=False)


def _document(request: ChatRequest, said: str, source: str) -> str:
    if request.format["type"] == "json_object":
        found: Any = {"model": "offline", "understood": phrases.shorten(source), "answer": said}
    else:
        found = fill(request.format["json_schema"]["schema"], source)
    return json.dumps(found, ensure_ascii=False)
