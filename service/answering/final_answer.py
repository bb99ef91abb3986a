"""What the model said at last → the answer that is stored. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from service.answering import prompt, reply_text
from service.answering import reply as replies
from service.answering.job import Job
from service.answering.tool_loop import LastWord
from service.domain import Ending, State, Turn
from service.errors import ModelError
from service.flows import Flow, change

TOOL_ERRORS = {
    "tool_unknown": "it is not known whether a tool did what it should: look, and settle it",
    "tool_mismatch": "a tool did not do what it should",
}


def final_answer(
    job: Job, asked: prompt.Asked, turns: Sequence[Turn], said: LastWord, now: int
) -> Ending:
    """Its reply, and what is remembered of it. `turns` are those that the model was told, `now`
    is epoch ms."""
    flow, completion = job.flow, said.completion
    text, cut = _shaped(flow, completion.text)
    truncated = completion.truncated or cut
    turn, keep, sums = None, 0, False
    if flow.history is not None:
        tokens = prompt.estimate(asked.text) + prompt.estimate(text)
        turn = Turn(asked.text, text, now, tokens)
        sums = flow.history.summarize is not None
        keep = prompt.kept(flow, job.claimed.turns if sums else turns, turn)
        if not sums:
            keep = min(keep, (completion.turns or 0) + 1)
    return Ending(
        State.FAILED if said.code else State.DONE,
        replies.answered(job, text, completion.model, truncated, said.code),
        text=text,
        error_code=said.code,
        error_message=TOOL_ERRORS[said.code] if said.code else None,
        model=completion.model,
        turn=turn,
        keep_turns=keep,
        keep_summary=sums and prompt.summary_of(flow, job.claimed.turns, now),
        crowded=sums and completion.dropped > 0,
        cooldown_until=now + int(flow.cooldown * 1000) if flow.cooldown else None,
        value=change.value_of(flow, asked.scope) if flow.on_change is not None else None,
    )


def said_instead(job: Job, text: str, error: ModelError) -> Ending:
    """`on_error`'s text in the model's place."""
    text, cut = _shaped(job.flow, text)
    publishes = replies.reply(job, text, truncated=cut, error=error.code)
    publishes += replies.status(job, "failed", error.code)
    return Ending(State.FAILED, publishes, text, error_code=error.code, error_message=error.message)


def _shaped(flow: Flow, text: str) -> tuple[str, bool]:
    """The text as it is published and remembered, and whether it was cut."""
    if flow.speak or flow.max_length is not None:
        return reply_text.said(flow, text)
    return text, False
