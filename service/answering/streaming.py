"""Deltas of a reply on their way: gathered for MQTT, at once for who listens over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson

from service.errors import MessageError
from service.flows import Flow
from service.hub import Delta, Hub
from service.model import Claimed, Publish
from service.template import Scope

WINDOW = 0.25  # seconds: the broker sees at most four messages a second for each reply


class Stream:
    """One request's stream. A higher `run` replaces the text of every lower one."""

    def __init__(
        self,
        topic: str | None,
        claimed: Claimed,
        hub: Hub,
        post: Callable[[Publish], None],
        qos: int,
    ) -> None:
        self._topic = topic
        self._claimed = claimed
        self._hub = hub
        self._post = post
        self._qos = qos
        self._run = (claimed.fence - 1) * 100 + 1
        self._number = 0
        self._held: list[str] = []
        self._sent = 0.0

    async def delta(self, text: str) -> None:
        """A piece of text came; the first goes out at once."""
        self._hub.delta(Delta(self._claimed.id, self._run, text))
        if self._topic is None:
            return
        self._held.append(text)
        if time.monotonic() - self._sent >= WINDOW:
            self.flush()

    def restart(self) -> None:
        """The model begins again: what was said so far no longer counts."""
        self._run += 1
        self._number = 0
        self._held.clear()
        self._sent = 0.0

    def flush(self) -> None:
        """Publish what is held."""
        if self._topic is None or not self._held:
            return
        fields = {
            "id": self._claimed.id,
            "run": self._run,
            "seq": self._number,
            "delta": "".join(self._held).encode("utf-8", "replace").decode(),
        }
        self._held.clear()
        self._number += 1
        self._sent = time.monotonic()
        properties = (("request_id", self._claimed.id),)
        self._post(
            Publish(
                topic=self._topic,
                payload=orjson.dumps(fields),
                qos=self._qos,
                content_type="application/json",
                correlation=self._claimed.message.correlation,
                user_properties=properties,
            )
        )


def stream_for(
    flow: Flow, claimed: Claimed, scope: Scope, hub: Hub, post: Callable[[Publish], None]
) -> Stream | None:
    """A stream if the flow has a stream topic or somebody listens; else None."""
    topic = None
    if flow.stream is not None and claimed.publish:
        try:
            topic = flow.stream.render_topic(scope)
        except MessageError:
            topic = None
    if topic is None and not hub.wanted(claimed.id):
        return None
    return Stream(topic, claimed, hub, post, flow.qos)
