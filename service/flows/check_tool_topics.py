"""The topics of tools, between all flows: nobody else gives a tool's commands, and nobody but a
device or a person answers them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from service.flows.flow import Flow, Flows
from service.flows.keys import Place, walk
from service.flows.kinds import Mark
from service.flows.lines import Path
from service.flows.report import Report, show
from service.flows.tool import Confirm, Tool
from service.mqtt.topics import overlap
from service.rulesql.reserved import landing

_DIFFER = "let the two differ in a level that is plain text"


@dataclass(frozen=True, slots=True)
class _Spot:
    """A topic in the file. `reached` is the filter of where its messages are."""

    flow: Flow
    path: Path
    text: str
    reached: str
    mark: Mark
    table: Any

    @property
    def confirm(self) -> Confirm | None:
        """The table of who is asked first, if it stands there."""
        return self.table if isinstance(self.table, Confirm) else None

    @property
    def is_command(self) -> bool:
        return isinstance(self.table, Tool) and self.mark is Mark.TOPIC


def check_tool_topics(flows: Flows, report: Report) -> None:
    """Report ways round a tool's guards, and ways to answer in the place of who is asked."""
    spots = list(_spots(flows))
    for heard in spots:
        if heard.mark is Mark.ANSWER:
            _check_answer(heard, spots, report)
    for said in spots:
        if said.mark is Mark.TOPIC and not said.is_command:
            for command in spots:
                if command.is_command and overlap(said.reached, command.reached):
                    _no_command(said, command, report)
    _check_guards(flows, report)


def _spots(flows: Flows) -> Iterator[_Spot]:
    for flow in flows.flows.values():
        for place in walk(flow, ("flows", flow.name)):
            if (reached := _reached(flow, place)) is not None:
                text = str(place.value)
                yield _Spot(flow, place.path, text, reached, place.mark, place.table)


def _reached(flow: Flow, place: Place) -> str | None:
    """None: it is no topic, or nobody publishes there."""
    match place.mark:
        case Mark.TOPIC | Mark.LOOKUP:
            return landing(place.value.topic_filter)
        case Mark.ANSWER:
            return str(place.value.topic_filter)
        case Mark.RESPONSE:
            return landing(place.value)
        case Mark.WATCHED:
            return str(place.value.filter)
        case Mark.REQUEST if flow.every is None:
            return str(place.value.filter)
    return None


# Where answers are heard


def _check_answer(heard: _Spot, spots: list[_Spot], report: Report) -> None:
    """Report what makes an answer of something else, or something else of an answer."""
    if heard.reached.startswith("$"):
        said = f'"{heard.text}" is a topic of the broker: no device or person can publish to it'
        report.add(heard.path, said, "name a topic that does not begin with $")
    for other in spots:
        if not overlap(other.reached, heard.reached):
            continue
        match other.mark:
            case Mark.TOPIC | Mark.RESPONSE:
                _heard_ourselves(heard, other, report)
            case Mark.ANSWER if heard.confirm is not None and other.confirm is None:
                _heard_twice(heard, other, report)
            case Mark.REQUEST | Mark.WATCHED | Mark.LOOKUP:
                _overheard(heard, other, report)


def _heard_ourselves(heard: _Spot, said: _Spot, report: Report) -> None:
    if said.table is heard.table and heard.confirm is not None:
        report.add(
            heard.path,
            f'"{heard.text}" is where the question is asked: the question would answer itself',
            _DIFFER,
        )
        return
    where = show(report.place(said.path))
    reached = f'"{heard.text}" can be reached by {where}, "{said.text}"'
    if said.mark is Mark.RESPONSE:
        what = "what a device wants to have there is not published, since it would be the answer"
        report.warn(heard.path, f"{reached}: {what}", "narrow allow_response_topics")
        return
    report.add(heard.path, f"{reached}: our own message would be the answer", _DIFFER)


def _heard_twice(person: _Spot, device: _Spot, report: Report) -> None:
    where = show(report.place(person.path))
    report.add(
        device.path,
        f'"{device.text}" overlaps with {where}, "{person.text}": what a person says to a question '
        "would be taken for the device's answer",
        _DIFFER,
    )


_OVERHEARD = {
    Mark.REQUEST: "what is answered there is asked as a question as well",
    Mark.WATCHED: "what is answered there is kept, and told to a model",
}


def _overheard(heard: _Spot, other: _Spot, report: Report) -> None:
    """Somebody else reads what is answered: a PIN is for nobody else."""
    where = show(report.place(other.path))
    if heard.confirm is not None and heard.confirm.pin_env is not None:
        report.add(
            heard.path,
            f'"{heard.text}" overlaps with {where}, "{other.text}": a PIN that is said there would '
            "be stored, and told to a model",
            _DIFFER,
        )
    elif other.mark is Mark.REQUEST:
        said = f'"{heard.text}" is a request topic of flow "{other.flow.name}" too'
        report.warn(heard.path, said, _OVERHEARD[other.mark])
    elif other.mark is Mark.WATCHED and heard.confirm is not None:
        said = f'"{heard.text}" overlaps with {where}, "{other.text}"'
        report.warn(heard.path, said, _OVERHEARD[other.mark])


# Where commands go


def _no_command(said: _Spot, command: _Spot, report: Report) -> None:
    reaches = f'"{said.text}" can reach "{command.text}" of the tool {command.table.name}'
    if said.confirm is not None:
        what = "the question would be a command, with words that a model chose"
        report.add(said.path, f"{reaches}: {what}", _DIFFER)
        return
    what = "what would go to such a topic is not published, since it is no command"
    report.warn(said.path, f"{reaches}: {what}", _DIFFER)


def _check_guards(flows: Flows, report: Report) -> None:
    """Report tools that lead where another one does, without what stands before that one."""
    tools: list[tuple[Path, Tool]] = [
        (("flows", flow.name, "tools", index), tool)
        for flow in flows.flows.values()
        for index, tool in enumerate(flow.tools)
        if tool.topic is not None
    ]
    for first, second in combinations(tools, 2):
        told: set[str] = set()
        for mine, theirs in ((second, first), (first, second)):
            missing = [key for key in mine[1].gets_round(theirs[1]) if key not in told]
            if missing and _meet(mine[1], theirs[1]):
                told.update(missing)
                _gets_round(*mine, *theirs, " and ".join(missing), report)


def _meet(one: Tool, other: Tool) -> bool:
    return any(overlap(mine, theirs) for mine in one.reach for theirs in other.reach)


def _gets_round(
    path: Path, tool: Tool, there: Path, other: Tool, keys: str, report: Report
) -> None:
    whose = other.name if path[1] == there[1] else f"{other.name} of flow {there[1]}"
    tell = report.add if "confirm" in keys else report.warn
    tell(
        (*path, "topic"),
        f'"{tool.topic}" can reach "{other.topic}" of the tool {whose}: a way round its {keys}',
        f"give {tool.name} the same {keys}; or keep the two apart by a level that is plain text, "
        "by an enum of the argument, or by a fixed payload in each",
    )
