"""Rounds of tool calls as they are stored, and as the model is told of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.answering.job import Job
from service.answering.remote import tool_of
from service.answering.tool_round import MISMATCH, Done
from service.llm.answers import Completion


def step_of(job: Job, number: int, said: Completion) -> dict[str, Any]:
    """A round as it is stored: the model's calls, each with its `call_id`, no results yet, and
    what that model wants to see again with them."""
    claimed = job.claimed
    # Who is asked again after a failure must not be taken for who was asked before.
    again = f"-{claimed.fence}" if claimed.fence > 1 else ""
    return {
        "text": said.text,
        "echo": {"model": said.asked, "fields": dict(said.echo)},
        "calls": [
            {
                "id": call.id or f"call_{number}_{index}",
                "call_id": f"{claimed.id}-{number}-{index}{again}",
                "name": call.name,
                "arguments": call.arguments,
                **call.echo,
                **_marks(job, call.name),
            }
            for index, call in enumerate(said.tool_calls)
        ],
    }


def _marks(job: Job, name: str) -> dict[str, bool]:
    """What who knows no flow has to know of a call if this round is interrupted: whether it may
    be out (`inbox.unsettled_calls`)."""
    remote = job.remote.tools.get(name)
    if remote is not None:
        guarded = tool_of(remote, job.flow).guarded
        return {"once": True, "guarded": guarded} if remote.at_most_once else {}
    tool = next((one for one in job.flow.tools if one.name == name), None)
    if tool is None or tool.topic is None or not tool.at_most_once:
        return {}
    return {"once": True, "guarded": tool.guarded}


def finished(
    step: Mapping[str, Any], done: Sequence[Done], at: int, took_ms: int
) -> dict[str, Any]:
    """The round with its results. `outcomes` says what became of each command, `unsettled` which
    of them a person has to look after."""
    found = {name: value for name, value in step.items() if name != "stages"}
    found |= {"results": [one.text for one in done], "at": at, "took_ms": took_ms}
    if any(one.outcome for one in done):
        found["outcomes"] = [one.outcome for one in done]
    calls = zip(step["calls"], done, strict=True)
    if unsettled := [call["call_id"] for call, one in calls if one.unsettled]:
        found["unsettled"] = unsettled
    return found


def code_of(steps: Sequence[Mapping[str, Any]]) -> str | None:
    """The error code with which a request ends because of its tools, if it does."""
    code = None
    if any(MISMATCH in step.get("outcomes", ()) for step in steps):
        code = "tool_mismatch"
    if any(step.get("unsettled") for step in steps):
        code = "tool_unknown"
    return code


def as_messages(step: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A finished round as Chat Completions messages."""
    calls = [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
            **({"extra_content": extra} if (extra := call.get("extra_content")) else {}),
        }
        for call in step["calls"]
    ]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": result}
        for call, result in zip(step["calls"], step["results"], strict=True)
    ]
    said = {"role": "assistant", "content": step["text"], "tool_calls": calls}
    return [{**said, "echo": step.get("echo") or {}}, *results]
