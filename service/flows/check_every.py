"""What does not go with `every`: such a flow has no message, and nobody who sent it."""

from __future__ import annotations

from service.flows.flow import Flow
from service.flows.keys import keys_of
from service.flows.lines import Path
from service.flows.report import Report
from service.flows.tables import FlowKeys

_OF_MESSAGES = {
    "where": "there is no message to test",
    "require": "there is no message to test",
    "strip": "there is no message to cut",
    "charset": "there is no message to read",
    "dedupe": "each time is one request already",
    "client_limit": "there is no client",
    "allow_response_topics": "nobody asks for an answer elsewhere",
}


def check_every(flow: Flow, report: Report) -> None:
    """Report what a flow with `every` lacks, or has too much."""
    base: Path = ("flows", flow.name)
    if flow.every is None:
        return
    if flow.prompt is None:
        hint = 'write prompt = "Sum up the night: ${recent}"'
        report.add((*base, "every"), "asks nothing: there is no prompt", hint)
    if flow.input == "image":
        report.add((*base, "input"), "can't go with every", "there is no picture at that time")
    for name, why in _OF_MESSAGES.items():
        if getattr(flow, name) != keys_of(FlowKeys)[name].default:
            report.warn((*base, name), f"does nothing with every: {why}", "leave it out")
