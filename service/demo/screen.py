"""What the demo shows: each message from question to reply, within 80 columns."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from service.demo.samples import why_not
from service.demo.words import ENGLISH, Words
from service.flows import Flow, Flows
from service.flows.check_tool import listened
from service.mqtt.templates import Template
from service.mqtt.topics import matches
from service.rulesql.reserved import REPLY_TOPIC

WIDTH = 80
SHOWN = 300  # characters of a message
PAUSE = 2.0  # seconds after which the next question stands apart
_IDS = re.compile(r"\b([0-9a-f]{6})[0-9a-f]{26}(-[\d-]+)?")
# A line may break at spaces, after a comma, and between Chinese characters.
_WIDE = "\u2e80-\uffef"
_OPEN, _CLOSE = "“‘（《「", "，。、：；！？”’）》」…"  # they end no line, and begin none
_WORDS = re.compile(
    rf"\s+|[{_OPEN}]*[{_WIDE}][{_CLOSE}]*|[^\s,{_WIDE}]*,+|"
    rf"[{_OPEN}]*[^\s,{_OPEN}{_WIDE}]+[{_CLOSE}]*|[{_OPEN}]"
)
# Control characters and those that change the direction of writing: what a device sent must not
# steer a terminal.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


class Screen:
    """Prints, wraps, and knows which topic is what. One line may be growing: a stream's."""

    def __init__(self, console: Console, flows: Flows, say: Words = ENGLISH) -> None:
        self.console = console
        self.say = say
        self.width = min(console.width, WIDTH)
        self.flows = flows
        self._growing: str | None = None  # the stream whose line is not ended
        self._column = 0
        self._gap = ""  # a space that is not printed before the next word is there
        self._quiet_since = time.monotonic()
        self._streamed: dict[str, str] = {}  # text so far, by topic

    # Plain lines

    def line(self, text: str = "", *, indent: int = 0, style: str = "") -> None:
        """A line of plain text, wrapped."""
        self._end()
        for part in wrapped(text, self.width, indent, indent):
            self.console.print(f"[{style}]{escape(part)}[/]" if style else escape(part),
                               soft_wrap=True)  # fmt: skip

    def title(self, name: str, text: str) -> None:
        self._end()
        self.console.print(f"\n[bold]{escape(name)}[/]  [dim]{escape(text)}[/]", soft_wrap=True)

    def raw(self, text: str, *, markup: bool = False) -> None:
        """A line as it is: a command to copy would not work with a line break in it."""
        self._end()
        self.console.print(text, soft_wrap=True, markup=markup)

    def hanging(self, head: str, text: str) -> None:
        """`head`, and the text wrapped beside it."""
        self._end()
        first, *rest = wrapped(head + text, self.width, 0, cell_len(head))
        for each in (first, *rest):
            self.console.print(escape(each), soft_wrap=True)

    # Messages

    def message(
        self, topic: str, payload: bytes, properties: str = "", error: str | None = None
    ) -> None:
        """Show a message, by what its topic means to the flows, then its MQTT 5 properties.

        `error`: it tells a failure with this code.
        """
        if topic.startswith(REPLY_TOPIC.split("/")[0] + "/"):
            return  # between the service and its rule for binary Correlation-Data; doctor's
        if error is not None:
            self._shown(topic, "▶", "red", f"{self._text(payload)}  [{clean(error)}]")
        else:
            self._message(topic, payload)
        if properties:
            told = _IDS.sub(r"\1…", clean(properties))
            self.line(f"MQTT 5: {told}", indent=4, style="dim")

    def _message(self, topic: str, payload: bytes) -> None:
        if asked := [flow for flow in self.flows.flows.values() if flow.pattern(topic)]:
            self._question(topic, payload, asked)
            return
        part = self._part_of(topic)
        if part == "stream":
            self._piece(topic, payload)
        elif part == "status":
            self._shown(topic, "▶", "green", _status(payload), dim=True)
        elif part == "reply":
            self._reply(topic, payload)
        elif part == "command":
            self._shown(topic, "▶", "magenta", self._text(payload))
        elif part == "question":
            self._shown(topic, "▶", "yellow", self._text(payload))
        elif part == "answer":
            self._shown(topic, "◀", "yellow", self._text(payload))
        else:
            self._shown(
                topic,
                "·",
                "dim",
                f"{self._text(payload)}  {self.say('(no flow listens here)')}",
                dim=True,
            )

    def _text(self, payload: bytes, limit: int | None = SHOWN) -> str:
        return shown(payload, limit, self.say)

    def _question(self, topic: str, payload: bytes, asked: list[Flow]) -> None:
        if time.monotonic() > self._quiet_since + PAUSE:
            self.line()
        self._shown(topic, "◀", "cyan", self._text(payload))
        reasons = [(flow.name, why_not(flow, topic, payload)) for flow in asked]
        if all(reason for _, reason in reasons):
            for name, reason in reasons:
                said = self.say(
                    "no answer from {name}: {why}", name=name, why=self.say(reason or "")
                )
                self.line(said, indent=4, style="dim")

    def _part_of(self, topic: str) -> str | None:
        for flow in self.flows.flows.values():
            for part, template in _published(flow):
                if matches(template.topic_filter, topic):
                    return part
        for flow in self.flows.flows.values():
            if flow.allows_response_topic(topic):
                return "reply"
        return None

    def _shown(self, topic: str, sign: str, colour: str, text: str, *, dim: bool = False) -> None:
        self._end()
        safe = clean(topic)
        first, *rest = wrapped(f"{safe} {sign} {text}", self.width, 2, 4)
        head = f"  {safe}"
        if first.startswith(head):
            body = escape(first[len(head) :])
            lines = [f"[{colour}]{escape(head)}[/]" + (f"[dim]{body}[/]" if dim else body)]
        else:  # the topic alone is longer than a line
            lines = [escape(first)]
        lines += [f"[dim]{escape(each)}[/]" if dim else escape(each) for each in rest]
        for each in lines:
            self.console.print(each, soft_wrap=True)

    def _reply(self, topic: str, payload: bytes) -> None:
        text = self._text(payload, None)
        whole = " ".join(text.split())
        for streamed, said in list(self._streamed.items()):
            if said and " ".join(said.split()) == whole:
                del self._streamed[streamed]
                note = self.say("(the same, in one piece: {count} characters)", count=len(text))
                self._shown(topic, "▶", "green", note, dim=True)
                return
        self._shown(topic, "▶", "green", self._text(payload))

    def _piece(self, topic: str, payload: bytes) -> None:
        """A piece of a stream: the line grows."""
        try:
            fields = json.loads(payload)
            text, first = str(fields["delta"]), fields.get("seq") == 0
        except (ValueError, KeyError, TypeError):
            self._shown(topic, "▶", "green", self._text(payload))
            return
        safe = clean(text, keep="\n").replace("\n", " ")
        if first:
            self._streamed[topic] = ""
        if self._growing != topic:
            self._end()
            head = f"  {clean(topic)} ▶ " + ("" if first else "… ")
            self.console.print(f"[green]{escape(head[:-3])}[/]{escape(head[-3:])}", end="",
                               soft_wrap=True)  # fmt: skip
            self._growing, self._column, self._gap = topic, cell_len(head), ""
        self._streamed[topic] = self._streamed.get(topic, "") + safe
        for word in _WORDS.findall(safe):
            if word.isspace():
                self._gap = " "
                continue
            size = cell_len(self._gap + word)
            if self._column + size > self.width:
                self.console.print("\n    ", end="", soft_wrap=True)
                self._column, self._gap, size = 4, "", cell_len(word)
            self.console.print(escape(self._gap + word), end="", soft_wrap=True)
            self._column += size
            self._gap = ""

    def _end(self) -> None:
        """End the line that grows."""
        self._quiet_since = time.monotonic()
        if self._growing is not None:
            self._growing = None
            self.console.print()


def _published(flow: Flow) -> Iterator[tuple[str, Template]]:
    for part, template in (
        ("stream", flow.stream),
        ("status", flow.status),
        ("reply", flow.reply),
        ("reply", flow.error),
        *(("command", tool.topic) for tool in flow.tools),
        *(("question", tool.confirm.ask) for tool in flow.tools if tool.confirm is not None),
        *(("answer", topic) for _, topic in listened(flow)),
    ):
        if template is not None:
            yield part, template


def _status(payload: bytes) -> str:
    try:
        return clean(str(json.loads(payload)["status"]))
    except (ValueError, KeyError, TypeError):
        return shown(payload)


def shown(payload: bytes, limit: int | None = SHOWN, say: Words = ENGLISH) -> str:
    """A payload as one line of text."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        kinds = ((b"\x89PNG", "a PNG picture, "), (b"\xff\xd8", "a JPEG picture, "))
        kind = next((name for magic, name in kinds if payload.startswith(magic)), "")
        return say("({kind}{count} bytes)", kind=say(kind), count=len(payload))
    text = " ".join(clean(text, keep="\n\t").split())
    if text.startswith(("{", "[")):
        text = _IDS.sub(r"\1…", text)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return text or say("(empty)")


def clean(text: str, keep: str = "") -> str:
    """The text without characters that could steer a terminal."""
    return "".join(
        char if char in keep or unicodedata.category(char) not in _HIDDEN else "\ufffd"
        for char in text
    )


def wrapped(text: str, width: int, first: int, rest: int) -> list[str]:
    """The text in lines of at most `width` cells, indented; Chinese breaks anywhere."""
    lines, line, used = [], " " * first, first
    for word in _WORDS.findall(text):
        size = cell_len(word)
        if used + size > width and line.strip():
            lines.append(line.rstrip())
            line, used = " " * rest, rest
            word = word.lstrip()
            size = cell_len(word)
        while used + size > width and not word.isspace():  # a word longer than a line
            cut = max(1, width - used)
            lines.append(line + word[:cut])
            line, used, word = " " * rest, rest, word[cut:]
            size = cell_len(word)
        line += word
        used += size
    lines.append(line.rstrip())
    return lines
