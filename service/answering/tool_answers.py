"""What devices and people say to tool calls that wait: which call is meant, and does it count."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import orjson

from service.answering.consent import YesOrNo, meaning
from service.domain import Ear, Message, Wait
from service.errors import BadRequest, Conflict, Forbidden, StoreBusy, Unavailable
from service.flows import Flows
from service.inbox import Hear, Heard, Inbox, Judge, Verdict, Word
from service.mqtt.comparisons import CALL, Comparison
from service.mqtt.templates import MISSING, Scope, TemplateError

KEPT = 16_000  # bytes of an answer that are kept
TRIES = 3  # of a PIN
NO_PIN = "the PIN is missing"
EARLY = "it was said before this was asked"
SLACK = 2000  # ms that EMQX's clock may be behind ours
SAID = {True: b"yes", False: b"no"}

log = logging.getLogger("emqx-gpt.answering")


def pins_of(flows: Flows, environ: Mapping[str, str]) -> dict[str, str]:
    """The PINs that flows name, by the names of their variables."""
    asked = [
        confirm
        for flow in flows.flows.values()
        for confirm in (*(tool.confirm for tool in flow.tools), *flow.asks.values())
    ]
    named = {one.pin_env for one in asked if one is not None and one.pin_env is not None}
    return {name: environ[name] for name in named if environ.get(name)}


class ToolAnswers:
    """`pins` gives each PIN by the name of its variable; `now` gives epoch ms."""

    def __init__(
        self, store: Inbox, pins: Callable[[], Mapping[str, str]], *, now: Callable[[], int]
    ) -> None:
        self._store = store
        self._pins = pins
        self._now = now

    async def hear(self, message: Message) -> str:
        """A message of a device or a person: what it was, for figures. Raises Unavailable."""
        judge = judge_of(message, self._pins(), self._now())
        at, topic = message.received_at, message.topic
        said = Hear(judge, at, topic=topic, message=message.id, call_id=_id(message))
        return _result(await self._heard(said))

    async def decide(
        self, id: str, yes: bool, *, call_id: str | None, pin: str | None, who: str
    ) -> None:
        """A person's word about request `id`, over HTTP or on a terminal. `call_id` None: to the
        one open question. Raises Conflict (`not_waiting`, `pin_unset`), BadRequest (`which_call`),
        Forbidden (`pin_missing`, `wrong_pin`), Unavailable."""
        given = orjson.dumps({"answer": yes} | ({"pin": pin} if pin else {}))
        asked: list[str] = []

        def judge(heard: Sequence[Heard]) -> Mapping[int, Verdict]:
            places = [at for at, one in enumerate(heard) if _asked(one, self._now())]
            asked[:] = [heard[at].wait.call_id for at in places]
            meant = [at for at in places if call_id in (None, asked[places.index(at)])]
            if len(meant) != 1:
                return {}
            return {meant[0]: _decided(heard[meant[0]].wait, given, self._pins(), who)}

        found = await self._heard(Hear(judge, self._now(), id=id))
        if found:
            _told(*found[0], yes)
        elif len(asked) > 1 and call_id is None:
            calls = ", ".join(asked)
            raise BadRequest(f"several questions are open; name one: {calls}", code="which_call")
        else:
            text = "nothing is asked (any more): it was answered, or its time is over"
            raise Conflict(text, code="not_waiting")

    async def _heard(self, said: Hear) -> list[tuple[Heard, Verdict]]:
        try:
            found = await self._store.hear(said)
        except StoreBusy as error:
            raise Unavailable(error.message, code=error.code, retry_after=2) from None
        for heard, verdict in found:
            log.debug("request %s: %s %s", heard.request, heard.wait.ear, verdict.word.name.lower())
        return found


def _told(heard: Heard, verdict: Verdict, yes: bool) -> None:
    """Raises Forbidden, Conflict where a yes was not taken for one."""
    name = heard.wait.rule.get("pin_env")
    match verdict.word:
        case Word.ANSWER if not yes or verdict.answer == SAID[True]:
            return
        case Word.ANSWER:
            text = f"that is the wrong PIN; after {TRIES} of them the answer is no"
            raise Forbidden(text, code="wrong_pin")
        case Word.TRY:
            left = TRIES - heard.wait.tries - 1
            text = f"that is the wrong PIN; {left} more, and the answer is no"
            raise Forbidden(text, code="wrong_pin")
        case _ if verdict.note == NO_PIN:
            raise Forbidden("this yes must bring the PIN", code="pin_missing")
    text = f"the PIN can't be checked: {name} is not set in the environment of this process"
    raise Conflict(text, code="pin_unset")


def _result(found: Sequence[tuple[Heard, Verdict]]) -> str:
    """answered, late, ignored; nobody: no call waits there."""
    words = {verdict.word for _, verdict in found}
    if Word.ANSWER in words or Word.LATEST in words:
        return "answered"
    if Word.LATE in words:
        return "late"
    return "ignored" if words else "nobody"


def judge_of(message: Message, pins: Mapping[str, str], now: int) -> Judge:
    """Whom `message` answers. Pure. By our clock, since a call that waits goes by it too; but what
    was said before a call waited for it is no answer to it, and nothing is an answer twice."""
    at = now

    def judge(heard: Sequence[Heard]) -> Mapping[int, Verdict]:
        if message.id and any(one.wait.heard == message.id for one in heard):
            return {}  # EMQX brings it again
        early = {at for at, one in enumerate(heard) if one.open and _is_early(one.wait, message)}
        if early:
            later = [at for at in range(len(heard)) if at not in early]
            verdicts = judged([heard[at] for at in later])
            found = {later[at]: verdict for at, verdict in verdicts.items()}
            return {at: Verdict(Word.NOTE, note=EARLY) for at in early} | found
        return judged(heard)

    def judged(heard: Sequence[Heard]) -> dict[int, Verdict]:
        found: dict[int, Verdict] = {}
        asked = {at for at, one in enumerate(heard) if one.wait.ear is Ear.CONFIRM}
        found |= _people(heard, asked, message, pins, at)
        found |= _devices(heard, set(range(len(heard))) - asked, message, at)
        return found

    return judge


def _is_early(wait: Wait, message: Message) -> bool:
    return message.received_at + SLACK < int(wait.rule.get("since", 0))


def _counts(one: Heard, at: int) -> bool:
    return one.open and at <= one.wait.until


def _asked(one: Heard, at: int) -> bool:
    return one.wait.ear is Ear.CONFIRM and _counts(one, at)


# People


def _people(
    heard: Sequence[Heard], places: set[int], message: Message, pins: Mapping[str, str], at: int
) -> dict[int, Verdict]:
    if named := [place for place in places if _named(heard[place].wait, message)]:
        places = set(named)
    elif _names_another(message):
        return {}
    waiting = [place for place in sorted(places) if _counts(heard[place], at)]
    if not waiting:
        late = max(places, key=lambda place: heard[place].wait.until, default=None)
        return {} if late is None else {late: Verdict(Word.LATE, note="it came too late")}
    by = f"client {message.clientid}" if message.clientid else "client"
    if len(waiting) == 1:
        return {waiting[0]: _decided(heard[waiting[0]].wait, message.payload, pins, by)}
    if meaning(message.payload, None) is YesOrNo.NO:
        return {place: Verdict(Word.ANSWER, b"no", by) for place in waiting}
    note = "several questions are open: a yes must name its call_id"
    return {place: Verdict(Word.NOTE, note=note) for place in waiting}


def _decided(wait: Wait, said: bytes, pins: Mapping[str, str], by: str) -> Verdict:
    """What an answer is to a question."""
    name = wait.rule.get("pin_env")
    pin = pins.get(name) if name else None
    if name and pin is None and meaning(said, None) is not YesOrNo.NO:
        return Verdict(Word.NOTE, note=f"{name} is not set here")
    match meaning(said, pin):
        case YesOrNo.YES:
            return Verdict(Word.ANSWER, b"yes", by)
        case YesOrNo.NO:
            return Verdict(Word.ANSWER, b"no", by)
        case YesOrNo.NO_PIN:
            return Verdict(Word.NOTE, note=NO_PIN)
        case YesOrNo.WRONG_PIN if wait.tries + 1 >= TRIES:
            return Verdict(Word.ANSWER, b"no", by, f"{TRIES} wrong PINs")
        case YesOrNo.WRONG_PIN:
            return Verdict(Word.TRY, note="a wrong PIN")
        case YesOrNo.NEITHER:
            return Verdict(Word.NOTE, note="neither yes nor no")


# Devices


def _devices(
    heard: Sequence[Heard], places: set[int], message: Message, at: int
) -> dict[int, Verdict]:
    found: dict[int, Verdict] = {}
    answered = False  # one message answers one call
    for place in sorted(places):
        one = heard[place]
        if not _counts(one, at):
            continue
        if one.wait.ear is Ear.VERIFY:
            found |= _state(place, one.wait, message)
            continue
        meant, note = _meant(one.wait, message)
        if meant and not answered:
            answered = True
            found[place] = Verdict(Word.ANSWER, message.payload[:KEPT])
        elif note:
            found[place] = Verdict(Word.NOTE, note=note)
    if not answered:
        late = [
            place
            for place in sorted(places)
            if not _counts(heard[place], at)
            and heard[place].wait.ear is Ear.ANSWER
            and _meant(heard[place].wait, message)[0]
        ]
        if late:
            found[late[-1]] = Verdict(Word.LATE, note="it came too late")
    return found


def _state(place: int, wait: Wait, message: Message) -> dict[int, Verdict]:
    """What a device says of itself, where a call is verified by it."""
    if _names_another(message) and not _named(wait, message):
        return {}
    scope = _scope(wait, message)
    expect = Comparison.parse(wait.rule["expect"])
    if expect.holds(scope):
        return {place: Verdict(Word.ANSWER, message.payload[:KEPT])}
    if not expect.readable(scope):
        return {place: Verdict(Word.NOTE, note=f"it has not what {expect} reads")}
    return {place: Verdict(Word.LATEST, message.payload[:KEPT])}


def _meant(wait: Wait, message: Message) -> tuple[bool, str]:
    """Whether a device answers this call; why not, if that can be told."""
    if "match" in wait.rule:
        try:
            match = Comparison.parse(wait.rule["match"])
        except TemplateError:
            return False, ""
        scope = _scope(wait, message)
        if match.needs_json and scope.payload is MISSING:
            return False, "it is not JSON"
        return match.holds(scope), ""
    if _named(wait, message):
        return True, ""
    if _names_another(message):
        return False, ""
    if wait.rule.get("told"):
        return False, f"it names no {CALL}"
    return True, ""


def _scope(wait: Wait, message: Message) -> Scope:
    rule = wait.rule
    return Scope(message, rule.get("captured"), {**rule.get("arguments", {}), CALL: wait.call_id})


def _id(message: Message) -> str | None:
    """The call that a message says it is for."""
    if message.correlation:
        return message.correlation.decode("utf-8", "replace")
    value = Scope(message).payload
    found = value.get(CALL) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else None


def _named(wait: Wait, message: Message) -> bool:
    return _id(message) == wait.call_id


def _names_another(message: Message) -> bool:
    return _id(message) is not None
