"""A request on the terminal: its facts, its timeline as bars, question and reply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from service import safe_text
from service.cli.listing import COLOURS
from service.operations.waterfall import Bar, waterfall

LABEL = 30  # cells
LONGEST = 4000  # characters of question and reply
WAITED = {
    "conversation": "for the one before it",
    "queue": "for a place among the model calls",
    "circuit": "the model is not called now",
    "paused": "paused by a person",
    "rate_limit": "for the provider's rate limit",
    "retry": "to try again",
    "person": "for a person's word",
    "device": "for a device",
    "flow_unknown": "no flow of this name here",
}
STYLES = {"ok": "blue", "bad": "red", "tool": "magenta", "waited": "yellow", "failed": "red"}


def draw(out: Console, request: Mapping[str, Any]) -> None:
    """All of it."""
    state = str(request["state"])
    head = Text.assemble(
        (state, f"bold {COLOURS.get(state, 'cyan')}"), " ", (request["id"], "bold"), "\n"
    )
    out.print(head, end="")
    if request["error"]:
        text = f"{request['error']['code']}: {request['error']['message']}"
        out.print(Text(safe_text.shown(text), style="red"))
    facts = {
        "flow": request["flow"] or "-",
        "conversation": request["conversation"] or "-",
        "topic": request["topic"],
        "client": request["clientid"] or "-",
        "model": request["model"] or "-",
        "tokens": f"{request['usage']['prompt_tokens']} → {request['usage']['completion_tokens']}",
        "price": "-" if request["cost"] is None else f"${request['cost']:.6f}",
    }
    for name, value in facts.items():
        out.print(Text.assemble((name.ljust(13), "dim"), safe_text.shown(str(value))))
    out.print()
    for line in _lines(waterfall(dict(request)), out.width):
        out.print(line)
    if waits := list(_waits(request)):
        out.print(Text("\nwaits", style="bold"))
        for text in waits:
            out.print(Text(safe_text.shown(text)))
    for name in ("payload", "reply"):
        text = request[name]
        out.print(Text.assemble("\n", ("question" if name == "payload" else name, "bold")))
        out.print(Text("-" if text is None else _clipped(text)))


def _lines(bars: list[Bar], width: int) -> Iterator[Text]:
    room = max(width - LABEL - 11, 10)
    for bar in bars:
        label, more = _label(bar.event, open=bar.open)
        drawn = _drawn(bar, room)
        drawn.truncate(room, pad=True)
        label.truncate(LABEL, overflow="ellipsis", pad=True)
        yield Text.assemble(label, " ", drawn, " ", _took(bar))
        for line in more:
            yield Text("  " + safe_text.shown(line), style="dim")


def _drawn(bar: Bar, room: int) -> Text:
    start = min(int(bar.left / 100 * room), room - 1)
    cells = max(1, min(round(bar.width / 100 * room), room - start))
    drawn = "▏" if bar.took_ms is None else ("░" if bar.open else "█") * cells
    return Text(" " * start + drawn, style=STYLES.get(bar.kind, "green"))


def _took(bar: Bar) -> Text:
    if bar.took_ms is not None:
        return Text(_length(bar.took_ms).rjust(9))
    at = "" if bar.offset_ms is None else f"+{_length(bar.offset_ms)}"
    return Text(at.rjust(9), style="dim")


def _length(ms: float) -> str:
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 600_000 else f"{ms / 60_000:.0f} min"


def _label(event: Mapping[str, Any], *, open: bool) -> tuple[Text, list[str]]:
    """What stands before the bar, and the lines below it."""
    what, rest, more = str(event["what"]), "", list[str]()
    if what == "received":
        rest = f"QoS {event['qos']}"
    elif what == "waited":
        what = "waits" if open else what
        rest = WAITED.get(event["reason"], str(event["reason"]))
        rest += f" ({event['code']})" if event.get("code") else ""
        more = [f"request {event['request']}"] if event.get("request") else []
    elif what == "begun":
        rest = f"run {event['run']}"
    elif what == "attempt":
        what, rest = "model", str(event["model"])
        if event["result"] != "ok":
            more = [f"{event['result']}: {event['message'] or ''}"]
    elif what == "first_token":
        what = "first token"
    elif what == "tool":
        what, rest, more = str(event["name"]), "tool", _tool(event)
    elif what == "heard":
        what, rest = str(event["by"] or "device"), f"said, for {event['tool']}"
        more = [f"{event['topic']} {event['answer']}"]
    elif what == "unheard":
        what, rest = "nothing heard", f"for {event['tool']}"
        more = [f"{event['topic']}{_late(event)}"]
    elif what == "answered":
        rest = f"{event['tokens']} tokens"
    elif what in ("published", "publishing"):
        delivered = event.get("delivered")
        came = ", delivered" if delivered else ", nobody subscribed" if delivered is False else ""
        more = [f"{event['topic']} QoS {event['qos']}{came}"]
    elif what == "ended":
        rest = str(event["state"])
    return Text.assemble((safe_text.shown(what), "bold"), " ", (safe_text.shown(rest), "dim")), more


def _tool(event: Mapping[str, Any]) -> list[str]:
    arguments = event["arguments"]
    if not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    topic = [f"topic {event['topic']}"] if event["topic"] else []
    result = event["result"] if event["result"] is not None else "not known yet"
    lines = [f"arguments {arguments}", *topic, f"result {result}"]
    if event.get("outcome"):
        lines.append(f"outcome {event['outcome']}")
    if settled := event.get("settled"):
        lines.append(f"settled by {settled['by']}: {settled['outcome']}")
    return lines


def _late(event: Mapping[str, Any]) -> str:
    late = f", {event['late']} came too late" if event["late"] else ""
    return late + (f" ({event['noted']})" if event["noted"] else "")


def _waits(request: Mapping[str, Any]) -> Iterator[str]:
    """What goes on, and what a person has to do."""
    for wait in request["waits"]:
        line = f"{wait['tool']}: {wait['ear']} on {wait['topic']}"
        if wait["open"]:
            yield f"{line}, until {wait['until'][:19]}Z; call {wait['call_id']}"
            if wait.get("asked"):
                pin = " (with the PIN)" if wait["pin"] else ""
                yield f"  asked: {wait['asked']}"
                yield f"  emqx-gpt requests confirm {request['id']} yes|no{pin}"
        elif wait["answer"] is not None and wait["answered_at"]:
            yield f"{line}: {wait['answer']} (by {wait['by']}){_late(wait)}"
        else:
            yield f"{line}: no answer{_late(wait)}"
    for call in request["unsettled"]:
        yield f"unsettled: {call['tool']} {call['arguments']}, call {call['call_id']}"
    if request["unsettled"]:
        yield f"  look, then: emqx-gpt requests settle {request['id']} committed|refused"


def _clipped(text: str) -> str:
    more = len(text) - LONGEST
    shown = safe_text.lines(text[:LONGEST])
    return shown if more <= 0 else f"{shown}\n… and {more} characters more (--json has all)"
