"""What flows.toml says, as frozen values: the words the rest of the program uses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from service.domain import Batch, Message
from service.errors import MessageError
from service.flows.keys import walk
from service.flows.kinds import Mark
from service.flows.kinds import key as key_of
from service.flows.model_names import DEFAULT_PROVIDER, ModelRef
from service.flows.tables import FlowKeys, McpKeys, Price, ProviderKeys
from service.flows.tool import Confirm, Tool
from service.mqtt.payloads import readable
from service.mqtt.templates import Scope, Template
from service.mqtt.topics import TopicPattern, matches, overlap
from service.rulesql.reserved import landing

_KEY_LENGTH = 200  # fits every database's index, and a URL
_DIGEST = re.compile(r"~[0-9a-f]{32}\Z")
_REGEX_REACH = 2000  # characters that are searched: a wake word is said at the start
_PAUSE = " ,.!?:;…，。！？、：；"  # "Hey robot, …": what speech recognition puts after a wake word


@dataclass(frozen=True, slots=True)
class Provider(ProviderKeys):
    """An OpenAI-compatible server. Without `base_url` it is the one of the settings."""

    name: str = DEFAULT_PROVIDER


@dataclass(frozen=True, slots=True)
class McpServer(McpKeys):
    """An MCP server. `line` of flows.toml is where its token, or else its table, stands."""

    name: str = ""
    line: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Flow(FlowKeys):
    """One entry of flows.toml. Durations are seconds; None is "not set"."""

    name: str = ""
    asks: dict[str, Confirm] = key_of(
        dict, "How a person is asked before calls of MCP servers' tools, by server."
    )

    @property
    def ordered(self) -> bool:
        """Whether a conversation is answered one at a time: what comes next depends on it."""
        remembers = (self.history, self.cooldown, self.on_change, self.collect)
        return any(each is not None for each in remembers)

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """The models in the order in which they are asked."""
        return (self.model, *self.fallback)

    @property
    def all_models(self) -> tuple[ModelRef, ...]:
        """These, and the one that sums up, if it is another."""
        sums = self.history.summarize if self.history is not None else None
        if not isinstance(sums, ModelRef) or sums in self.models:
            return self.models
        return (*self.models, sums)

    def pattern(self, topic: str) -> TopicPattern | None:
        """The most specific of the request patterns that match `topic`."""
        if len(self.request) == 1:
            return self.request[0] if matches(self.request[0].filter, topic) else None
        found = [pattern for pattern in self.request if matches(pattern.filter, topic)]
        return min(found, key=lambda pattern: pattern.rank, default=None)

    def match(self, topic: str) -> dict[str, str] | None:
        """The captured levels of `topic`; None if this flow does not listen there."""
        pattern = self.pattern(topic)
        return pattern.match(topic) if pattern else None

    def topic_for(self, conversation: str) -> str:
        """A topic of the flow for who names none: its levels from the conversation."""
        pattern = self.request[0]
        levels = conversation.split("/")
        if len(levels) != len(pattern.names) or not all(levels):
            levels = [re.sub(r"[/+#\0]", "-", conversation)] * len(pattern.names)
        names = dict(zip(pattern.names, levels, strict=True))
        made = re.sub(r"\$\{([^}]+)\}", lambda found: names[found[1]], pattern.text)
        return "/".join("http" if level in ("+", "#") else level for level in made.split("/"))

    def readable(self, message: Message) -> Message:
        """The message with its payload as plain UTF-8, where it is text of a known charset."""
        payload = message.payload
        plain = not payload.endswith(b"\0") and payload[:1] not in (b"\xef", b"\xfe", b"\xff")
        as_it_is = plain and self.charset is None and message.content_type is None
        if as_it_is or self.input == "image":
            return message
        return readable(message, self.charset)

    def conversation_of(self, message: Message, captured: Mapping[str, str]) -> str:
        """What shares memory, order, cooldown and limit: 1 to 200 harmless characters.

        By default the captured levels joined by `/`, or `-` if there are none; with the names in
        front (`#device/…`) where the topic captures other ones than the flow's first. Where a
        value that `conversation` (or `collect.by`) asks for is missing, or the topic is none of
        this flow's, the client has a conversation of its own (`~clientid`): two people must not
        share a memory.
        What a device chose can't look like any of these marks.
        """
        alone = key(f"~{message.clientid or message.id}")
        words = self.conversation
        if self.collect is not None and self.collect.by is not None:
            words = self.collect.by
        if words is None:
            order = [name for pattern in self.request for name in pattern.names]
            levels = [captured[name] for name in dict.fromkeys(order) if name in captured]
            if not levels and self.pattern(message.topic) is None:
                return alone  # a rule made by hand brought it here
            if not levels:
                return key("")
            names = [name for name in dict.fromkeys(order) if name in captured]
            if set(names) != set(self.request[0].names):
                return key(f"#{','.join(names)}/{'/'.join(levels)}")
            return key(_plain("/".join(levels)))
        try:
            scope = Scope(self.readable(message), captured)
            return key(_plain(words.render_key(scope)))
        except MessageError:
            return alone

    @property
    def batch(self) -> Batch | None:
        """What `collect` asks for."""
        if self.collect is None:
            return None
        every = int(self.collect.every * 1000)
        return Batch(every, self.collect.messages, self.collect.size)

    def window_of(self, levels: Mapping[str, str]) -> str | None:
        """Whose readings these are, by `recent.topic` and the levels that it names: 1 to 200
        harmless characters. None if one of them is unknown: it belongs to nobody, and is mixed
        with nobody's."""
        assert self.recent is not None
        names = self.recent.topic.names
        if any(name not in levels for name in names):
            return None
        return key(_plain("/".join((self.recent.topic.text, *(levels[name] for name in names)))))

    def dedupe_of(self, message: Message, captured: Mapping[str, str]) -> str:
        """Two messages of one flow with the same value are one request.

        Where the value is missing or empty every message stands for itself.
        """
        try:
            value = self.dedupe.render_key(Scope(self.readable(message), captured))
        except MessageError:
            value = ""
        return key(_plain(value or message.id))

    def heard(self, text: str) -> str | None:
        """The text after `strip`, or None if `require` finds nothing: not meant for us.

        Both look at the first 2,000 characters only.
        """
        head = text[:_REGEX_REACH]
        if self.require is not None and self.require.search(head) is None:
            return None
        if self.strip is None or (found := self.strip.search(head)) is None:
            return text
        before, after = text[: found[0]], text[found[1] :]
        return (before + after if before.strip() else after.lstrip(_PAUSE)).strip()

    def allows_response_topic(self, topic: str) -> bool:
        """Whether an MQTT 5 Response-Topic counts."""
        return any(matches(allowed, topic) for allowed in self.allow_response_topics)

    def bypassed(self, tool: Tool, topic: str) -> str | None:
        """The tool whose `confirm` a call of `tool` to `topic` would get round. None: there is
        none, as `check` sees to; the gate asks it of each command all the same."""
        lands = landing(topic)
        for other in self.tools:
            meets = any(overlap(one, lands) for one in other.reach)
            if meets and "confirm" in tool.gets_round(other):
                return other.name
        return None


class Commands:
    """The topics of all tools: what goes there is a command; and those on which they are answered:
    what is said there counts as a device's word, or a person's yes."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        topics = (topic for flow in flows for topic in _of_tools(flow))
        self._filters = sorted({landing(topic.topic_filter) for topic in topics})

    def __contains__(self, topic: object) -> bool:
        lands = landing(str(topic))
        return any(overlap(one, lands) for one in self._filters)


def _of_tools(flow: Flow) -> Iterator[Template]:
    yield from (tool.topic for tool in flow.tools if tool.topic is not None)
    yield from (place.value for place in walk(flow, ()) if place.mark is Mark.ANSWER)


@dataclass(frozen=True, slots=True)
class Flows:
    """The whole file. `providers` always holds the default one, `openai`."""

    flows: Mapping[str, Flow]
    providers: Mapping[str, Provider]
    prices: Mapping[str, Price]
    source: str = "flows.toml"
    price_list: str | None = None
    mcp: Mapping[str, McpServer] = field(default_factory=dict)

    def find(self, name: str | None, topic: str) -> Flow | None:
        """The flow that a rule named; without a name, the one that listens to `topic`.

        A name that is not here is None, whatever the topic: another process may know it.
        Of several, the one with the most specific pattern; of equals the one without
        `where`, then the first in the file.
        """
        if name is not None:
            return self.flows.get(name)
        found = [
            (pattern.rank, flow.where is not None, order, flow)
            for order, flow in enumerate(self.flows.values())
            if (pattern := flow.pattern(topic)) is not None
        ]
        return min(found, key=lambda item: item[:3])[3] if found else None


_MARKED = re.compile(r"[~#]|-\Z|http:|key:")
"""How keys begin that no device chose: of a client alone, of names, of nothing, of HTTP."""


def _plain(value: str) -> str:
    """What a device chose, apart from those."""
    return f"#={value}" if _MARKED.match(value) else value


def key(value: str) -> str:
    """`value` as a key for any database: what is long or odd ends in a digest instead."""
    if not value:
        return "-"
    odd = not value.isprintable() or _DIGEST.search(value)
    if len(value.encode(errors="replace")) <= _KEY_LENGTH and not odd:
        return value
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:32]
    readable = "".join(char if char.isprintable() else "_" for char in value[:40])
    return f"{readable}~{digest}"
