"""What the offline model answers: the same request always gets the same answer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.demo.offline_model import vocabulary
from service.demo.offline_model.fill import fill
from service.demo.offline_model.reading import told_name
from service.demo.offline_model.request import Message, Request
from service.demo.offline_model.results import Outcome
from service.demo.offline_model.tool_choice import Call, Choice, choose, forced

_READ = 4000  # characters that are read of a text, so that a huge one costs no more than a page

_ASKS_NAME = re.compile(
    r"\bwhat(?:['’]?s| is| was) my name\b|\bwho am i\b|\b(?:know|remember|tell me|say) my name\b"
    r"|\b(?:know|remember) who i am\b|\bwie heiße ich\b|\bwer bin ich\b|\bmein(?:en)? namen?\b.*\?"
    r"|我叫(?:什么|啥)|我的?(?:名字|姓名)[是叫](?:什么|啥)|我是谁|(?:知道|记得)我(?:的名字|叫)",
    re.IGNORECASE,
)
_STORY = re.compile(
    r"\bstory\s+(?:about|of)\b\W{0,3}(\S.{0,100})|关于(.{1,100}?)的.{0,4}故事"
    r"|\bgeschichte\s+(?:über|von)\b\W{0,3}(\S.{0,100})",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = r"(-?\d{1,12}(?:\.\d{1,9})?)\s*([^\s;,.，。；]{0,8})"
_ALARM = re.compile(
    rf"(?:\bsensor|传感器)\s*(\S.{{0,80}}?)\s*"
    rf"(?:reads?|shows?|measures?|is at|misst|zeigt|的?读数|显示|测得)[为是：:]?\s*{_NUMBER}"
    rf".{{0,80}}?"
    rf"(?:limit|grenze|grenzwert|上限|限值|阈值)\s*(?:is|of|ist|von|[为是：:])?\s*{_NUMBER}",
    re.IGNORECASE | re.DOTALL,
)


_TABLE = re.compile(
    rf"^(\d+) messages until .*?^(\S{{1,80}}): min {_NUMBER} at \S+(?: \S+)?, mean {_NUMBER}, "
    rf"max {_NUMBER} at \S+(?: \S+)?, last (\S{{1,40}})",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Answer:
    """A text, or the tools to call."""

    text: str | None
    calls: tuple[Call, ...] = ()


def answer(request: Request, language: str = "en") -> Answer:
    """Call the tools that fit, else say what was understood, as JSON if that is wanted. `language`:
    of who is asked in English."""
    talk = _Talk(request, language)
    choice = talk.choice()
    if choice.calls:
        return Answer(None, choice.calls)
    said = talk.said(choice)
    schema = request.format.get("schema") or _told_schema(request)
    if not request.format and schema is None:
        return Answer(talk.says["mark"] + said.strip())
    source = "\n".join(filter(None, (talk.text, *talk.now.pictures)))
    if schema is None:
        found: Any = {"model": "offline", "understood": vocabulary.shorten(source), "answer": said}
    else:
        found = fill(schema, f"{source}\n{said}" if talk.results else source)
    return Answer(json.dumps(found, ensure_ascii=False))


def _told_schema(request: Request) -> Any:
    """A JSON Schema that the instructions hold: so clients ask where no format is taken."""
    for message in request.messages:
        if message.role in ("system", "developer") or not request.tools:
            for at in (hit.start() for hit in re.finditer(r"\{", message.text[:20_000])):
                try:
                    found, _ = json.JSONDecoder().raw_decode(message.text, at)
                except (ValueError, RecursionError):
                    continue
                if isinstance(found, dict) and "type" in found and "properties" in found:
                    return found
                break
    return None


class _Talk:
    """A request, taken apart: what is asked now, what came before, which tools answered."""

    def __init__(self, request: Request, language: str) -> None:
        self.request, messages = request, request.messages
        at = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
        self.now = messages[at] if at >= 0 else Message("user", "")
        spoken = (each for each in messages[: max(at, 0)] if each.role in ("user", "assistant"))
        self.earlier = [each for each in spoken if each.text]
        self.after = messages[at + 1 :] if at >= 0 else ()
        self.results = {each.call_id: each.text for each in self.after if each.role == "tool"}
        self.text = self.now.text[:_READ]
        found = vocabulary.language(self.text)
        self.says = vocabulary.SAYS[language if found == "en" else found]

    def choice(self) -> Choice:
        tools, wanted = self.request.tools, self.request.tool_choice
        if not tools or self.results or wanted == "none":
            return Choice()
        before = "\n".join(each.text[:_READ] for each in self.earlier)
        match wanted:
            case {"function": {"name": str(name)}} | {"name": str(name)}:
                tool = next((each for each in tools if each.name == name), tools[0])
                return Choice((forced(self.text, tool, before),))
        # A name is remembered, not looked up; and an alarm is told, not acted upon.
        known = _ASKS_NAME.search(self.text) or _ALARM.search(self.text)
        found = Choice() if known else choose(self.text, tools, before)
        if wanted == "required" and not found.calls:
            return Choice((forced(self.text, tools[0], before),))
        return found

    def _say(self, key: str, *values: object) -> str:
        return self.says[key].format(*values)

    def said(self, choice: Choice) -> str:
        if self.results:
            return self._outcome()
        if choice.unknown_place:
            return self._say("far", choice.unknown_place, ", ".join(choice.known_places))
        if self.now.pictures:
            asked = self._say("heard", vocabulary.shorten(self.text)) if self.text else ""
            return self._say("picture", "; ".join(self.now.pictures)) + asked
        if hit := _ALARM.search(self.text):
            sensor, value, unit, limit, limit_unit = hit.groups()
            over = round(float(value) - float(limit), 6)
            shown = [f"{x} {u}".strip() for x, u in
                     ((value, unit), (f"{over:.12g}", unit), (limit, limit_unit))]  # fmt: skip
            return self._say("over" if over > 0 else "within", sensor, *shown)
        if hit := _TABLE.search(self.text):
            count, name, low, _, mean, _, high, _, last = hit.groups()
            return self._say("table", count, name, low, high, mean, last)
        if hit := _STORY.search(self.text):
            about = next(filter(None, hit.groups())).strip(" .!。！")
            return self._say("story", vocabulary.shorten(about, 100))
        if not self.text.strip():
            return self._say("empty")
        return self._reply([each.name for each in self.request.tools])

    def _reply(self, tools: Sequence[str]) -> str:
        count = len(self.earlier)
        memory = self._say("first" if not count else "one" if count == 1 else "more", count)
        told = [each.text[:_READ] for each in (*self.earlier, self.now) if each.role == "user"]
        name = next((found for text in reversed(told) if (found := told_name(text))), None)
        if _ASKS_NAME.search(self.text):
            return (self._say("name", name) if name else self._say("no_name")) + memory
        heard = self._say("heard", vocabulary.shorten(self.text)).replace(".”.", ".”")
        if tools and vocabulary.things(self.text):
            heard += self._say("tools", ", ".join(tools))
        greeting = self._say("nice", name) if told_name(self.text) else ""
        return greeting + heard + memory

    def _outcome(self) -> str:
        """What was called, and what came of it."""
        outcome = Outcome(self.says)
        for id_, name, arguments in (call for each in self.after for call in each.calls):
            outcome.add(name, arguments, self.results.get(id_, ""))
        return outcome.text()
