"""What EMQX's access control has to allow so that the flows work, as lines of acl.conf. Pure.

EMQX 6 refuses what no rule names (`authorization.no_match = deny`). Only devices need it: the
service publishes through the REST API, which asks no access control.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from service.flows import Flows
from service.flows.keys import walk
from service.flows.kinds import Mark
from service.rulesql.reserved import RESERVED_TOPICS, landing

_HEAD = """\
%% What the flows of emqx-gpt need of EMQX's access control: lines for its acl.conf, before a
%% last {deny, all}. Narrow them where you can: ${clientid} and ${username} in place of a +.

%% The service's own topics: replies that a device must neither read nor forge.
"""
_PUBLISH = "%% Devices ask here, report, or keep their states."
_ANSWER = (
    "%% Devices answer commands here, and people confirm them: who may publish here can say yes.\n"
    "%% Narrow these first."
)
_SUBSCRIBE = "%% Devices hear replies, errors, progress and commands."


def acl(flows: Flows) -> str:
    """The lines, with a comment for each group."""
    lines = [_HEAD + _rule("deny", "all", RESERVED_TOPICS)]
    heard = {Mark.TOPIC, Mark.RESPONSE}
    for comment, verb, marks in (
        (_PUBLISH, "publish", {Mark.REQUEST, Mark.WATCHED, Mark.LOOKUP}),
        (_ANSWER, "publish", {Mark.ANSWER}),
        (_SUBSCRIBE, "subscribe", heard),
    ):
        if found := list(dict.fromkeys(_topics(flows, marks))):
            lines.append(f"{comment}\n{_rule('allow', verb, found)}")
    return "\n\n".join(lines) + "\n"


def _topics(flows: Flows, marks: set[Mark]) -> Iterator[str]:
    for flow in flows.flows.values():
        for place in walk(flow, ("flows", flow.name)):
            if place.mark not in marks:
                continue
            if place.mark is Mark.REQUEST and flow.every is not None:
                continue  # nobody publishes there: the clock asks
            if place.mark in (Mark.REQUEST, Mark.WATCHED):
                yield place.value.filter
            elif place.mark is Mark.RESPONSE:
                yield landing(place.value)
            else:
                yield landing(place.value.topic_filter)


def _rule(permission: str, verb: str, topics: Iterable[str]) -> str:
    listed = ",\n  ".join(json.dumps(topic, ensure_ascii=False) for topic in topics)
    return f"{{{permission}, all, {verb}, [\n  {listed}\n]}}."
