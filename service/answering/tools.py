"""Tool calls become messages on device topics, or reads of retained ones; bounded rounds.

Each round is stored before it is carried out: after a crash a call goes out again only with
the same `call_id`, and not at all if its tool says `at_most_once`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from service.answering.job import Job
from service.bodies import parsed
from service.domain import Publish
from service.emqx.publish_api import Result
from service.errors import BrokerError, MessageError
from service.flows import Tool
from service.flows.schemas import fault_in
from service.llm.answers import Completion
from service.mqtt.templates import Scope


class Sender(Protocol):
    """What carries out calls: the publisher, or what stands in for it in a replay."""

    async def send(self, message: Publish, *, once: bool = False) -> Result:
        """Publish a command."""

    async def retained(self, topic: str) -> bytes | None:
        """The retained message of a topic. Raises BrokerError."""


RESULT = 4000  # characters of a retained message the model gets to see


def step_of(job: Job, number: int, said: Completion) -> dict[str, Any]:
    """A round as it is stored: the model's calls, each with its `call_id`, no results yet, and
    what that model wants to see again with them."""
    return {
        "text": said.text,
        "echo": {"model": said.asked, "fields": dict(said.echo)},
        "calls": [
            {
                "id": call.id or f"call_{number}_{index}",
                "call_id": f"{job.claimed.id}-{number}-{index}",
                "name": call.name,
                "arguments": call.arguments,
                **call.echo,
            }
            for index, call in enumerate(said.tool_calls)
        ],
    }


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


async def carry_out(
    job: Job, publisher: Sender, step: Mapping[str, Any], *, resumed: bool
) -> list[str]:
    """The calls of a stored round, side by side; each result is a sentence for the model.

    `resumed`: an earlier process may have begun it.
    """
    calls = (_traced(job, publisher, call, resumed) for call in step["calls"])
    return list(await asyncio.gather(*calls))


async def _traced(job: Job, publisher: Sender, call: Mapping[str, Any], resumed: bool) -> str:
    began = job.log.now()
    result = await _call(job, publisher, call, resumed)
    known = any(tool.name == call["name"] for tool in job.flow.tools)
    known = known or call["name"] in job.remote.tools
    job.spans.tool(call, known, began, job.log.now(), result.startswith("error:"))
    return result


async def _call(job: Job, publisher: Sender, call: Mapping[str, Any], resumed: bool) -> str:
    tool = next((one for one in job.flow.tools if one.name == call["name"]), None)
    if tool is None and job.remote.meant(call["name"]):
        left = (job.claimed.deadline - job.log.now()) / 1000
        return await job.remote.call(call, left, resumed=resumed)
    if tool is None:
        return f"error: there is no tool {call['name']!r}"
    try:
        arguments = parsed(call["arguments"] or "{}")
    except ValueError:
        return "error: the arguments are not JSON"
    if found := fault_in(arguments, tool.parameters):
        return f"error: {found}"[:500]
    if not isinstance(arguments, dict):
        return "error: the arguments are no JSON object"
    if resumed and tool.at_most_once and tool.topic is not None:
        return "unknown: interrupted; it may or may not have been done and is not repeated"
    try:
        scope = Scope(job.claimed.message, job.captured, arguments)
        if tool.topic is not None:
            return await _command(job, publisher, tool, scope, arguments, call["call_id"])
        return await _read(publisher, tool, scope)
    except MessageError as error:
        return f"error: {error.message}"


async def _command(
    job: Job,
    publisher: Sender,
    tool: Tool,
    scope: Scope,
    arguments: Mapping[str, Any],
    call_id: str,
) -> str:
    if tool.topic is None:
        raise AssertionError("a publishing tool has a topic")
    if tool.payload is not None:
        payload = tool.payload.render(scope).encode("utf-8", "replace")
    else:
        payload = orjson.dumps({**arguments, "call_id": call_id})
    result = await publisher.send(
        Publish(
            topic=tool.topic.render_topic(scope),
            payload=payload,
            qos=tool.qos,
            retain=tool.retain,
            user_properties=(
                ("request_id", job.claimed.id),
                ("call_id", call_id),
                *job.spans.of_tool(call_id),
            ),
        ),
        once=tool.at_most_once,
    )
    if isinstance(result, BrokerError):
        return f"error: {result.message}"
    return "done" if result or result is None else "sent, but no device is listening"


async def _read(publisher: Sender, tool: Tool, scope: Scope) -> str:
    if tool.read is None:
        return "error: the tool does nothing"
    try:
        payload = await publisher.retained(tool.read.render_topic(scope))
    except BrokerError as error:
        return f"error: {error.message}"
    if payload is None:
        return "nothing is known: there is no retained message"
    return payload.decode("utf-8", "replace")[:RESULT]
