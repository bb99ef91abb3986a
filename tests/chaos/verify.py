"""Each request judged by content. Pure: evidence in, violations and figures out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from service.domain import State
from service.inbox import Row
from tests.chaos import model
from tests.chaos.broker import Published, has_subscriber
from tests.chaos.evidence import Call, Evidence
from tests.chaos.traffic import Message

CLAIMED = 2.0  # seconds from a claim to the model, at most, on a busy machine
TURNS = 3  # of flows.toml: history = { messages = 6 }


@dataclass
class Story:
    """One message and all that belongs to it. `copies` are (place, publish), in order.

    `opened` are the publishes of its tool, which must not repeat.
    """

    message: Message
    row: Row
    copies: list[tuple[int, Published]] = field(default_factory=list)
    opened: list[Published] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    told: Call | None = None  # the call whose answer is the stored reply

    def __str__(self) -> str:
        row = self.row
        return (
            f"{self.message.text or '(empty)'} [{self.message.id}] row {row.seq} {row.id}"
            f" {row.state} error={row.error_code} claims={row.claims} tries={row.tries}"
        )


def verify(evidence: Evidence) -> list[str]:
    """All violations, those of the run itself first."""
    stories, found = _stories(evidence)
    violations = [*evidence.faults, *found]
    for story in stories:
        violations += _ended(story)
        violations += _published(story)
    violations += _order(stories)
    return violations


def figures(evidence: Evidence) -> dict[str, Any]:
    """What the run survived, and what it cost."""
    stories, _ = _stories(evidence)
    return {**_count(evidence, stories), **evidence.figures, "seconds": round(evidence.seconds)}


def _stories(evidence: Evidence) -> tuple[list[Story], list[str]]:
    """Accepted = stored, one row for each; and publishes and calls that belong to nobody."""
    violations: list[str] = []
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in evidence.rows:
        rows[row.flow or "", row.message.id].append(row)
    stories: list[Story] = []
    for message in evidence.messages:
        found = rows.pop((message.flow, message.id), [])
        label = f"{message.flow} {message.text!r} [{message.id}]"
        if message.refused:
            violations.append(f"dropped: {label} was answered {message.refused}")
        if message.gone and not evidence.plan.loses_in_emqx:
            violations.append(f"lost inside EMQX: {label}")
        if not message.taken_at and message.gone < message.copies:
            violations.append(f"never taken: {label}")
        if message.accepted > 1:
            violations.append(f"accepted {message.accepted} times: {label}")
        if len(found) == 1:
            stories.append(Story(message, found[0]))
        elif message.taken_at or found:
            violations.append(f"{'lost' if not found else 'stored twice'}: {label}: {found}")
    violations += [f"stored, but nobody sent it: {left}" for left in rows.values()]
    by_id = {story.row.id: story for story in stories}
    for at, copy in enumerate(evidence.published):
        if copy.request_id in by_id and copy.topic.startswith("doors/"):
            by_id[copy.request_id].opened.append(copy)
        elif copy.request_id in by_id:
            by_id[copy.request_id].copies.append((at, copy))
        else:
            violations.append(f"published for no known request: {copy}")
    by_text = {(story.message.text): story for story in stories if story.message.text}
    numbers = {call.number: call for call in evidence.calls}
    for call in evidence.calls:
        if call.text in by_text:
            by_text[call.text].calls.append(call)
        else:
            violations.append(f"asked, but nobody sent it: {call}")
    for story in stories:
        said = re.search(r"\[(\d+)\]$", story.row.reply or "")
        story.told = numbers.get(int(said[1])) if said else None
    return stories, violations


def _ended(story: Story) -> Iterator[str]:
    row, message = story.row, story.message
    if not row.state.ended or row.ended_at is None:
        yield f"not ended: {story} not_before={row.not_before} answered_at={row.answered_at}"
    elif row.state not in message.ends and row.error_code not in (
        "worker_killed",
        "tool_unknown",  # a kill came between: rather not done than done twice
    ):
        yield f"ended as {row.state}: {story}: {row.error_message}"
    if row.state is State.DONE and (
        story.told is None
        or row.reply != model.reply(message.text, story.told.number)
        or story.told.outcome not in model.GOOD
    ):
        yield f"its reply is not what the model said: {story}: {row.reply!r}"


def _published(story: Story) -> Iterator[str]:
    """The stored reply, nothing else, at least once."""
    row, message = story.row, story.message
    for _, copy in story.copies:
        if copy.topic != message.reply_topic:
            yield f"on topic {copy.topic}: {story}"
        if row.state is State.DONE and (copy.payload != row.reply or copy.error is not None):
            yield f"published {copy.payload!r}, but stored {row.reply!r}: {story}"
        if row.state is not State.DONE and (copy.error != row.error_code or copy.error is None):
            yield f"published {copy.payload!r} with error {copy.error}: {story}"
    if len(story.opened) > 1:
        yield f"its at_most_once tool was called {len(story.opened)} times: {story}"
    if any(copy.topic != f"doors/{message.name}/open" for copy in story.opened):
        yield f"its tool was called on another topic: {story}: {story.opened}"
    if row.state.ended and row.state is not State.IGNORED and not story.copies:
        yield f"ended, but its end was never published: {story}"
    if row.state is State.IGNORED and story.copies:
        yield f"ignored, but published: {story}"
    if row.state is State.DONE and row.delivered is not has_subscriber(message.reply_topic):
        yield f"delivered is {row.delivered}: {story}"


def _order(stories: list[Story]) -> Iterator[str]:
    for line in _conversations(stories):
        yield from _in_turn(line)
        yield from _remembered(line)


def _in_turn(line: list[Story]) -> Iterator[str]:
    """What was taken before its successor was first asked must be answered before that."""
    for at, late in enumerate(line):
        began = min((call.at for call in late.calls), default=late.copies[0][1].at)
        for early in line[:at]:
            if early.message.taken_at >= began - CLAIMED:
                continue  # EMQX brought it too late
            first = early.copies[0]
            if first[0] > late.copies[0][0]:
                yield f"out of order: {late} was published before {early}"
            if late.told is not None and late.told.at < first[1].at:
                yield f"asked too early: {late}, before {early} was published"


def inversions(stories: list[Story]) -> int:
    """Replies of a conversation that came before one of a message that EMQX received earlier,
    of clients that keep to their buffer worker."""
    return sum(
        one.copies[0][0] > after.copies[0][0]
        for line in _conversations(stories)
        for one, after in pairwise(line)
        if not one.message.wanders
    )


def _conversations(stories: list[Story]) -> Iterator[list[Story]]:
    """The stories of each conversation, in the order in which EMQX received the messages."""
    found: dict[tuple[str, str], list[Story]] = defaultdict(list)
    for story in stories:
        if story.message.ordered and story.copies:
            found[story.message.conversation].append(story)
    for line in found.values():
        yield sorted(line, key=lambda story: (story.message.received_at, story.message.id))


def _remembered(line: list[Story]) -> Iterator[str]:
    """The call that made the stored reply saw the last turns, all of them, in their order."""
    answered = sorted(line, key=lambda story: story.copies[0][0])
    done: list[Story] = []
    for one, after in pairwise([*answered, None]):
        assert one is not None
        if one.row.state is not State.DONE or one.told is None:
            continue
        turns = [(each.message.text, each.row.reply) for each in done[-TURNS:]]
        seen = one.told.history
        if list(zip(seen[::2], seen[1::2], strict=False)) != turns or len(seen) % 2:
            next_ = f", next is {after}" if after is not None else ""
            yield f"wrong history: {one} saw {seen}, but there was {turns}{next_}"
        done.append(one)


def _count(evidence: Evidence, stories: list[Story]) -> dict[str, Any]:
    states = Counter(str(story.row.state) for story in stories)
    copies = [len(story.copies) for story in stories]
    calls = [len(story.calls) for story in stories]
    good = [sum(call.outcome in model.GOOD for call in story.calls) for story in stories]
    late = sum(
        call.at > story.copies[0][1].at for story in stories for call in story.calls if story.copies
    )
    fine = (*model.GOOD, "tool")
    faults = Counter(call.outcome for call in evidence.calls if call.outcome not in fine)
    return {
        "requests": len(evidence.messages),
        "delivered to the webhook twice on purpose": sum(m.copies > 1 for m in evidence.messages),
        "lost": len(evidence.messages)
        - len({m.id for m in evidence.messages if not m.taken_at and m.gone == m.copies})
        - sum(story.row.state.ended for story in stories),
        "ended": dict(states),
        "given up after five kills": sum(s.row.error_code == "worker_killed" for s in stories),
        "replies out of EMQX's order": inversions(stories),
        "replies published": sum(copies),
        "replies published again": sum(max(0, count - 1) for count in copies),
        "requests with a repeated reply": sum(count > 1 for count in copies),
        "most replies to one request": max(copies, default=0),
        "calls of an at_most_once tool": sum(len(story.opened) for story in stories),
        "model calls": sum(calls),
        "model calls that failed on purpose": dict(faults),
        "good answers of the model beyond one for each request": sum(max(0, n - 1) for n in good),
        "requests answered by the model more than once": sum(n > 1 for n in good),
        "most good answers to one request": max(good, default=0),
        "model calls begun after the reply was out": late,
    }
