"""Which of the offered tools a sentence asks for.

A tool is chosen by its name, description, properties and their enums, never by a fixed list,
and its arguments are filled from its own JSON Schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from service.demo.offline_model import vocabulary
from service.demo.offline_model.fill import fill

_READS = {
    *("get", "read", "query", "check", "list", "show", "fetch", "lookup", "look", "find", "is"),
    *("lies", "lese", "frage", "zeige", "查询", "读取", "获取"),
}
# Words that say nothing of what a tool is about.
_EMPTY = _READS | {
    *("set", "state", "value", "room", "place", "area", "the", "turn", "off", "on", "control"),
    *("and", "its", "for", "with", "from", "this", "that", "device", "action", "mode", "name"),
    *("switch", "schalte", "setze", "stelle", "der", "die", "das", "den", "und", "ein", "eine"),
    *("ist", "im", "auf", "to", "in", "at", "of", "or", "all", "are", "you", "please", "bitte"),
}
_POLITE = re.compile(
    r"^(?:\W|\b(?:please|can|could|would|will|you|now|then|also|and|hey|ok|okay|hi|hello|i want"
    r"|i would like|to|bitte|kannst|könntest|würdest|du|mal|dann|und|hallo|jetzt)\b"
    r"|请|帮我|麻烦|可以|能不能|能|再|然后|并且?|把)*",
    re.IGNORECASE,
)
_VERBS = (
    "turn|switch|set|make|play|pause|stop|skip|put|dim|open|close|change|raise|lower|start"
    "|increase|decrease|adjust|lock|unlock|next|previous|heat|cool|warm|light(?:en)?\\s+up"
    "|send|publish|say|announce|water|run|activate|deactivate|enable|disable|move|reset"
    "|mach|mache|schalte?|stelle?|setze?|drehe?|spiele?|öffne|schließe?|starte|stoppe?|dimme?"
    "|entriegel[en]?|entriegle|verriegel[en]?|verriegle|erhöhe|senke|fahre?|sperre?|sende|sage?|aktiviere|deaktiviere|bewässere|gieße?|heize|kühle"
)
_VERB = re.compile(
    rf"^(?:{_VERBS})\b|\b(?:ein|an|aus|ab|auf|zu)(?:schalten|machen|drehen)\b"
    r"|打开|开启|关掉|关闭|关上|锁上|启动|调[到成高低]|设[为置成]|播放|放一首|放点|暂停|停止"
    r"|[上下]一首|[热冷暖凉亮暗]一点|浇水|解锁|开锁|上锁",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"^(?:what|how|is|are|was|which|does|do|did|has|have|who|where|when|why|tell|show|check"
    r"|was|wie|ist|sind|welche[rs]?|wo|wann|warum|hat|haben|zeige?|brennt|läuft)\b"
    r"|[吗呢]\W*$|多少|几度|什么|是不是|有没有|怎么|多[热冷亮高]|哪",
    re.IGNORECASE,
)
_REFUSAL = re.compile(r"\b(?:don['’]?t|do not|never|nicht|nie)\b|不要|别", re.IGNORECASE)
_MORE_OR_LESS = re.compile(
    r"\b(?:warm|cool|cold|hott?|loud|quiet|bright|dark|wärm|kühl|kält|laut|leis|hell|dunkl)er\b",
    re.IGNORECASE,
)
_EVERY = re.compile(
    r"\b(?:all|every|everywhere|everything|both|alle|alles|überall|beide)\b|所有|全部|都", re.I
)
_STOPS = re.compile(
    r"(?:,(?!\d)|[;，；。！!])+|\.(?:\s|$)|(?<=[?？])|然后|并且?|\s+(?:then|dann)\s+"
)
_JOINS = re.compile(r"(\s+(?:and|und)\s+(?:then\s+|dann\s+|also\s+|auch\s+)?|[和与])", re.I)
# "and" ends a clause only before something that is known: "rock and roll" is one thing.
_STARTS = re.compile(
    rf"(?:(?:the|in|im|den|die|das|der|please|bitte)\s+)*(?:(?:{_VERBS}|is|ist|what|how|was|wie)\b)",
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
    def reads(self) -> bool | None:
        """Whether it looks something up, by its name or else its description; None: unknown."""
        if set(vocabulary.split(self.name)[:1]) & _READS:
            return True
        if set(vocabulary.split(self.name)) & {"set", "turn", "switch", "send", "start", "stop"}:
            return False
        if set(vocabulary.split(self.description)[:2]) & _READS:
            return True
        # Who asks whether a door is locked does not want it unlocked.
        return False if vocabulary.doings(" ".join(vocabulary.split(self.name)[:1])) else None

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

    @cached_property
    def place(self) -> str | None:
        """The argument that says in which room."""
        for name in self.properties:
            if any(vocabulary.places(option) for option in self.options(name)):
                return name
        return None

    @cached_property
    def reach(self) -> set[str]:
        """The rooms that it can reach."""
        options = self.options(self.place) if self.place else []
        return {each for option in options for each in vocabulary.places(option)}

    def is_against(self, text: str) -> bool:
        """Whether it does the contrary of what the text wants: to lock is not to unlock. One
        with an argument for it, or a description that names both, can do either."""
        said = (each for key in self.properties for each in (key, *self.options(key)))
        able = vocabulary.doings(" ; ".join(said)) | vocabulary.doings(self.description)
        return vocabulary.contrary(self.name, text) and not vocabulary.doings(text) & able

    def fits(self, text: str) -> int:
        """How well it fits what the text is about; 0 for not at all."""
        if self.is_against(text):
            return 0
        about = vocabulary.meanings(text)
        inner = [
            word
            for key in self.properties
            if key != self.place
            for each in (key, *self.options(key))
            for word in vocabulary.split(each)
        ]
        score = 0
        for weight, said in (
            (4, vocabulary.split(self.name)),
            (2, inner),
            (1, vocabulary.split(self.description)),
        ):
            kept = (each for each in said if len(each) > 2 or not each.isascii())
            spoken = list(dict.fromkeys(each for each in kept if each not in _EMPTY))
            known = vocabulary.meanings(" ".join(spoken)) & about
            score += weight * len(known)
            score += weight * sum(
                vocabulary.find(each, text) is not None
                for each in spoken
                if not vocabulary.known(each)
            )
        named = set(vocabulary.places(text))
        return score + 3 * bool(score and named & self.reach)


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
    clauses = [_clause(each) for each in _clauses(text)]
    doing = ""
    for at, clause in enumerate(clauses):
        after = clauses[at + 1] if at + 1 < len(clauses) else _Clause("", False, False)
        if vocabulary.on_off(clause.text) is None and _VERB.match(clause.text):
            # "turn the kitchen and bedroom lights off" is said of both.
            state = None if _VERB.match(after.text) else vocabulary.on_off(after.text)
            if state is not None:
                clause = replace(clause, text=f"{clause.text} {'on' if state else 'off'}")
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
    filled = fill({**tool.parameters, "type": "object"}, text, before=before, eager=True)
    return Call(tool.name, filled if isinstance(filled, dict) else {})


def _clauses(text: str) -> list[str]:
    found: list[str] = []
    for sentence in _STOPS.split(text):
        head, *rest = _JOINS.split(sentence)
        for join, tail in zip(rest[::2], rest[1::2], strict=True):
            if _STARTS.match(tail) or vocabulary.begins_known(tail):
                found.append(head)
                head = tail
            else:
                head += join + tail
        found.append(head)
    return [each for each in found if each.strip()]


def _clause(text: str) -> _Clause:
    said = _POLITE.sub("", text.strip(), count=1)
    # "could you turn it on?" asks nothing, "is it turned on?" orders nothing.
    verb = _VERB.search(said)
    orders = verb and (verb.start() == 0 or said != text.strip())
    asks = bool(_QUESTION.search(said)) and not orders
    acts = bool(
        verb
        or _MORE_OR_LESS.search(said)
        or vocabulary.on_off(said) is not None
        or re.search(r"\d", said)
    )
    return _Clause(said, asks, acts and not asks)


def _completed(clause: _Clause, doing: str, others: list[str]) -> _Clause:
    """The clause with what it leaves to its neighbours: "… the kitchen and the bedroom lights"."""
    named, about = vocabulary.places(clause.text), vocabulary.things(clause.text)
    if named and not clause.asks and not clause.acts and doing:
        for place in vocabulary.places(doing):
            for hit in vocabulary.find_all(place, doing):
                doing = doing.replace(hit[0], "")
        return replace(clause, text=f"{doing} {clause.text}", acts=True)
    if clause.acts and not about:
        # "turn it on": the device of the last clause, of one that follows, or of the talk so far.
        source = doing or next((each for each in others if vocabulary.things(each)), "")
        device = next(iter(sorted(vocabulary.things(source))), "")
        return replace(clause, text=f"{clause.text} {device}".strip())
    return clause


def _best(clause: _Clause, tools: Sequence[Tool]) -> Tool | None:
    if not clause.asks and not clause.acts:
        return None
    fitting = [
        (tool.fits(clause.text), tool) for tool in tools if tool.reads in (clause.asks, None)
    ]
    score, tool = max(fitting, key=lambda each: each[0], default=(0, None))
    return tool if score > 0 else None


def _calls(tool: Tool, text: str, before: str) -> Choice:
    place = tool.place
    call = forced(text, tool, before)
    if place is None:
        return Choice((call,))
    options = tool.options(place)
    named = vocabulary.places(text)
    if named and not tool.reach & set(named):
        return Choice(unknown_place=named[0], known_places=tuple(options))
    if not named and _EVERY.search(text):
        return Choice(tuple(Call(tool.name, {**call.arguments, place: each}) for each in options))
    return Choice((call,))
