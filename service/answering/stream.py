"""Deltas of a reply on their way: gathered for MQTT, at once for who listens over HTTP."""

from __future__ import annotations

import asyncio
import time

import orjson

from service.answering import reply_text
from service.answering.job import Job
from service.answering.publisher import Publisher
from service.answering.speech import Speaking
from service.domain import Claimed, Publish
from service.errors import MessageError
from service.flows import Flow
from service.llm.attempts import Log
from service.operations.events import Delta, Hub

WINDOW = 0.25  # seconds: the broker sees at most four messages a second for each reply


class Stream:
    """One request's stream, while entered. A higher `run` replaces the text of all lower ones."""

    def __init__(
        self, topic: str | None, claimed: Claimed, hub: Hub, publisher: Publisher, flow: Flow
    ) -> None:
        self._topic = topic
        self._claimed = claimed
        self._hub = hub
        self._publisher = publisher
        self._flow = flow
        self._speaking = Speaking() if flow.speak else None
        self._log: Log | None = None
        self._run = (claimed.fence - 1) * 100 + 1
        self._number = 0
        self._said = False
        self._held: list[str] = []
        self._sent = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
            self._flush()
        self._unset()

    def _finish(self) -> None:
        """What of a spoken reply was not sure before its end."""
        if self._speaking is None:
            return
        rest, anew = self._speaking.end()
        if anew:
            self.restart()
        if rest:
            self._say(rest)

    async def delta(self, text: str) -> None:
        """A piece of text came; the first goes out at once, the others with their window."""
        if self._log is not None and self._log.first is None:
            self._log.first = self._log.now()
        if self._speaking is not None:
            text = self._speaking.feed(text)
        if text:
            self._say(text)

    def _say(self, text: str) -> None:
        self._said = True
        self._hub.delta(Delta(self._claimed.id, self._run, text))
        if self._topic is None:
            return
        self._held.append(text)
        wait = self._sent + WINDOW - time.monotonic()
        if wait <= 0:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._flush)

    def restart(self) -> None:
        """The model begins again: what was said so far no longer counts."""
        self._speaking = Speaking() if self._flow.speak else None
        if not self._said:
            return
        self._unset()
        self._said = False
        self._run += 1
        self._number = 0
        self._held.clear()
        self._sent = 0.0

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        """Publish what is held."""
        self._unset()
        if self._topic is None or not self._held:
            return
        text = "".join(self._held).encode("utf-8", "replace").decode()
        self._held.clear()
        self._sent = time.monotonic()
        for payload in reply_text.deltas(self._flow, text, self._envelope):
            self._number += 1
            self._publisher.post(
                Publish(
                    topic=self._topic,
                    payload=payload,
                    qos=self._flow.qos,
                    content_type="application/json",
                    correlation=self._claimed.message.correlation,
                    user_properties=(("request_id", self._claimed.id),),
                ),
                of=self._claimed.id,
            )

    def _envelope(self, text: str) -> bytes:
        fields = {"id": self._claimed.id, "run": self._run, "seq": self._number, "delta": text}
        return orjson.dumps(fields)


def stream_for(job: Job, hub: Hub, publisher: Publisher) -> Stream | None:
    """A stream if the flow has a stream topic or somebody listens; else None."""
    flow, claimed, topic = job.flow, job.claimed, None
    if flow.stream is not None and claimed.publish:
        try:
            topic = flow.stream.render_topic(job.scope)
        except MessageError:
            topic = None
    if topic is None and not hub.wanted(claimed.id):
        return None
    stream = Stream(topic, claimed, hub, publisher, flow)
    stream._log = job.log
    return stream
