"""Which of the offered tools a sentence asks for: the offline model's hands.

A tool is chosen by its name, its properties and their enums, never by a fixed list, and
its arguments are filled from its own JSON Schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.demo.offline_model import phrases
from service.demo.offline_model.fill import fill
from service.demo.offline_model.reading import words

_READS = {"get", "read", "query", "check", "list", "show", "fetch", "lookup", "is", "find"}
_EMPTY = _READS | {"set", "state", "value", "room", "place", "area"}
_EMPTY |= {"the", "turn", "off", "control"}
_POLITE = re.compile(
    r"^(?:\W|\b(?:please|can|could|would|will|you|now|then|also|and|hey|ok|okay|hi|hello|i want"
    r"|i would like|to)\b|请|帮我|麻烦|可以|能不能|能|再|然后|并且?|把)*",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"^(?:turn|switch|set|make|play|pause|stop|skip|put|dim|open|close|change|raise|lower|start"
    r"|increase|decrease|adjust|lock|unlock"
    r"|next|previous|heat|cool|warm|light(?:en)?\s+up)\b"
    r"|打开|开启|关掉|关闭|关上|调[到成高低]|设[为置成]|播放|放一首|放点|暂停|停止|[上下]一首|[热冷暖凉亮暗]一点",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"^(?:what|how|is|are|was|which|does|do|did|has|have|who|where|when|why|tell|show|check)\b"
    r"|[吗呢]\W*$|多少|几度|什么|是不是|有没有|怎么|多[热冷亮高]|哪",
    re.IGNORECASE,
)
_REFUSAL = re.compile(r"\b(?:don['’]?t|do not|never)\b|不要|别", re.IGNORECASE)
_MORE_OR_LESS = re.compile(
    r"\b(?:warmer|cooler|colder|hotter|louder|quieter|brighter|darker)\b", re.IGNORECASE
)
_EVERY = re.compile(r"\b(?:all|every|everywhere|everything|both)\b|所有|全部|都", re.IGNORECASE)
# "and" ends a clause only before something new: "rock and roll" is one thing.
_CLAUSES = re.compile(
    r"[,;，；。！!]+|\.(?:\s|$)|(?<=[?？])|然后|并且?|\s+then\s+"
    r"|\s+and\s+(?=(?:then|also|please|turn|switch|set|make|play|pause|stop|put|dim|open|close"
    r"|the|in|volume|brightness|lights?|is|what|how|"
    + "|".join(group[0] for group in phrases.PLACES)
    + r")\b)|和(?="
    + "|".join(word for group in phrases.PLACES for word in group if not word.isascii())
    + ")",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Call:
    """One tool call to make."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """One tool as the request offers it."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def reads(self) -> bool:
        """Whether it looks something up, by its name."""
        return (words(self.name) or [""])[0] in _READS

    @property
    def properties(self) -> Mapping[str, Any]:
        """The arguments it takes."""
        found = self.parameters.get("properties")
        return found if isinstance(found, Mapping) else {}

    def options(self, name: str) -> list[str]:
        """The enum of one argument."""
        schema = self.properties.get(name)
        enum = schema.get("enum") if isinstance(schema, Mapping) else None
        return [each for each in enum if isinstance(each, str)] if isinstance(enum, list) else []

    def place(self) -> str | None:
        """The argument that says in which room."""
        for name in self.properties:
            if any(phrases.places(option) for option in self.options(name)):
                return name
        return None

    def fits(self, text: str) -> int:
        """How well it fits what the text is about; 0 for not at all."""
        about = phrases.topics(text)
        place = self.place()
        name = [word for word in words(self.name) if word not in _EMPTY]
        inner = [
            word
            for key in self.properties
            if key != place
            for each in (key, *self.options(key))
            for word in words(each)
            if word not in _EMPTY and len(word) > 2
        ]
        score = 4 * len(about & phrases.topics(" ".join(name)))
        score += 2 * len(about & phrases.topics(" ".join(inner)))
        score += len(about & phrases.topics(self.description))
        score += 3 * sum(phrases.find(word, text) is not None for word in name)
        return score + sum(phrases.find(word, text) is not None for word in set(inner))


@dataclass(frozen=True)
class Choice:
    """What to do: calls to make, or the room that no tool can reach."""

    calls: tuple[Call, ...] = ()
    unknown_place: str | None = None
    known_places: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Clause:
    text: str
    asks: bool
    acts: bool


def choose(text: str, tools: Sequence[Tool], before: str = "") -> Choice:
    """The calls that the sentence asks for; `before` is the conversation until now."""
    calls: list[Call] = []
    unreachable: Choice | None = None
    clauses = [_clause(each) for each in _CLAUSES.split(text) if each and each.strip()]
    doing = ""
    for at, clause in enumerate(clauses):
        if _REFUSAL.search(clause.text):
            continue
        context = "\n".join((before, *(each.text for each in clauses[:at])))
        coming = [each.text for each in clauses[at + 1 :]]
        clause = _completed(clause, doing, [*coming, *reversed(before.splitlines())])
        tool = _best(clause, tools)
        if tool is None:
            continue
        doing = clause.text
        made = _calls(tool, clause.text, context)
        calls += [call for call in made.calls if call not in calls]
        unreachable = unreachable or (made if made.unknown_place else None)
    return Choice(calls=tuple(calls)) if calls or unreachable is None else unreachable


def forced(text: str, tool: Tool, before: str = "") -> Call:
    """The call of a tool that the request insists on."""
    return Call(tool.name, _arguments(tool, text, before))


def _clause(text: str) -> _Clause:
    said = _POLITE.sub("", text.strip(), count=1)
    # "could you turn it on?" asks nothing, "is it turned on?" orders nothing.
    verb = _VERB.search(said)
    orders = verb and (verb.start() == 0 or said != text.strip())
    asks = bool(_QUESTION.search(said)) and not orders
    acts = bool(
        verb
        or _MORE_OR_LESS.search(said)
        or phrases.on_off(said) is not None
        or re.search(r"\d", said)
    )
    return _Clause(said, asks, acts and not asks)


def _completed(clause: _Clause, doing: str, others: list[str]) -> _Clause:
    """The clause with what it leaves to its neighbours: "… the kitchen and the bedroom lights"."""
    named, about = phrases.places(clause.text), phrases.topics(clause.text)
    if named and not clause.asks and not clause.acts and doing:
        for group in phrases.PLACES:
            for hit in phrases.find_all(group[0], doing):
                doing = doing.replace(hit[0], "")
        return replace(clause, text=f"{doing} {clause.text}", acts=True)
    if clause.acts and not about:
        # "turn it on": the device of the last clause, of one that follows, or of the talk so far.
        source = doing or next((each for each in others if phrases.topics(each)), "")
        device = next((t for t in phrases.TOPICS if t in phrases.topics(source)), "")
        return replace(clause, text=f"{clause.text} {device}".strip())
    return clause


def _best(clause: _Clause, tools: Sequence[Tool]) -> Tool | None:
    if not clause.asks and not clause.acts:
        return None
    fitting = [(tool.fits(clause.text), tool) for tool in tools if tool.reads == clause.asks]
    score, tool = max(fitting, key=lambda each: each[0], default=(0, None))
    return tool if score > 0 else None


def _calls(tool: Tool, text: str, before: str) -> Choice:
    place = tool.place()
    if place is None:
        return Choice((Call(tool.name, _arguments(tool, text, before)),))
    options = tool.options(place)
    named = phrases.places(text)
    reachable = {each for option in options for each in phrases.places(option)}
    if named and not reachable & set(named):
        return Choice(unknown_place=named[0], known_places=tuple(options))
    arguments = _arguments(tool, text, before)
    if not named and _EVERY.search(text):
        return Choice(tuple(Call(tool.name, {**arguments, place: each}) for each in options))
    return Choice((Call(tool.name, arguments),))


def _arguments(tool: Tool, text: str, before: str) -> dict[str, Any]:
    filled = fill({**tool.parameters, "type": "object"}, text, before=before, eager=True)
    return filled if isinstance(filled, dict) else {}
