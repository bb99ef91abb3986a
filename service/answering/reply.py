"""What is published for a request: replies, failures, status. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from service.answering import reply_text, sentences
from service.answering.job import Job
from service.domain import Ending, Publish, State
from service.errors import MessageError
from service.mqtt import topics


def reply_topic(job: Job) -> str | None:
    """Where the answer goes: the device's Response-Topic where the flow allows it.

    Raises MessageError if the flow's topic can't be made of this message.
    """
    flow, wanted = job.flow, job.claimed.message.response_topic
    if wanted and topics.fault_in_name(wanted) is None and flow.allows_response_topic(wanted):
        return wanted
    return flow.reply.render_topic(job.scope) if flow.reply else None


def reply(
    job: Job,
    text: str,
    model: str = "",
    *,
    truncated: bool = False,
    error: str | None = None,
) -> tuple[Publish, ...]:
    """The reply's publishes. `error`: the text is `on_error`, said in the model's place."""
    flow, claimed, usage = job.flow, job.claimed, job.log.usage
    topic = reply_topic(job) if claimed.publish else None
    if topic is None:
        return ()
    shown = reply_text.with_ellipsis(flow, text) if truncated else text
    is_json = flow.format == "json" or (flow.schema is not None and flow.chunk is None)
    payloads = reply_text.texts(flow, shown) if flow.chunk is not None else (_utf8(shown),)
    if flow.format == "json":
        fields: dict[str, Any] = {
            "id": claimed.id,
            "conversation": _clean(claimed.conversation),
            "text": _clean(text),
            "model": model,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
        }
        if truncated:
            fields["truncated"] = True
        payloads = reply_text.envelopes(flow, fields, _clean(text))
    properties = [("request_id", claimed.id)]
    if error:
        properties.append(("error", error))
    if truncated:
        properties.append(("truncated", "true"))
    return _publishes(job, topic, payloads, is_json, properties, flow.retain and error is None)


def failure(job: Job, code: str, message: str, about: str | None = None) -> tuple[Publish, ...]:
    """A failure told on the error topic, never retained; nothing if it has no topic. `about`:
    the sentence it has, where several share a code.

    Where no topic is set apart for errors, who named a Response-Topic hears of it there.
    """
    flow, claimed = job.flow, job.claimed
    if not claimed.publish:
        return ()
    try:
        if flow.error is None or flow.error == flow.reply:
            topic = reply_topic(job)
        else:
            topic = flow.error.render_topic(job.scope)
    except MessageError:
        return ()
    if topic is None:
        return ()
    heard = "" if flow.input == "image" else job.scope.text
    said = sentences.sentence(flow, about or code, heard)
    payloads = reply_text.texts(flow, said or f"No answer: {message}.")
    if flow.format == "json":
        told = _clean(said or message)
        fields = {"id": claimed.id, "error": {"code": code, "message": told}}
        payloads = reply_text.envelopes(flow, fields, told)
    properties = [("request_id", claimed.id), ("error", code)]
    return _publishes(job, topic, payloads, flow.format == "json", properties, retain=False)


def _publishes(
    job: Job,
    topic: str,
    payloads: tuple[bytes, ...],
    is_json: bool,
    properties: list[tuple[str, str]],
    retain: bool,
) -> tuple[Publish, ...]:
    """One for each piece; those who speak MQTT 5 find its number beside it, too."""
    flow, count, given = job.flow, len(payloads), job.spans.given()
    return tuple(
        Publish(
            topic=topic,
            payload=payload,
            qos=flow.qos,
            retain=retain,
            content_type="application/json" if is_json else "text/plain",
            correlation=job.claimed.message.correlation,
            expiry=flow.expiry,
            user_properties=(
                *properties,
                *((("chunk", f"{at}/{count}"),) if flow.chunk is not None else ()),
                *given,
            ),
        )
        for at, payload in enumerate(payloads, 1)
    )


def status(job: Job, state: str, error: str | None = None) -> tuple[Publish, ...]:
    """Progress for devices that show a light; nothing where the flow has no status topic."""
    flow, claimed = job.flow, job.claimed
    if flow.status is None or not claimed.publish:
        return ()
    try:
        topic = flow.status.render_topic(job.scope)
    except MessageError:
        return ()
    fields = {"id": claimed.id, "conversation": _clean(claimed.conversation), "status": state}
    if error:
        fields["error"] = error
    return (
        Publish(
            topic=topic,
            payload=orjson.dumps(fields),
            qos=flow.qos,
            content_type="application/json",
            user_properties=(("request_id", claimed.id),),
        ),
    )


STATUS = {
    State.DONE: "completed",
    State.FAILED: "failed",
    State.EXPIRED: "expired",
    State.IGNORED: "ignored",
}


def answered(
    job: Job, text: str, model: str = "", truncated: bool = False, code: str | None = None
) -> tuple[Publish, ...]:
    """All that is published when the model has answered; the reply is the first. `code`: what
    went wrong all the same."""
    state = STATUS[State.FAILED if code else State.DONE]
    return reply(job, text, model, truncated=truncated, error=code) + status(job, state, code)


def without_reply(
    job: Job,
    state: State,
    code: str,
    message: str = "",
    *,
    say: bool = True,
    about: str | None = None,
) -> Ending:
    """An end without a reply, and the sentence about it, if it is to `say` one. A light shows it in
    any case."""
    publishes = failure(job, code, message, about) if say else ()
    publishes += status(job, STATUS[state], code)
    return Ending(state, publishes, error_code=code, error_message=message or None)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _clean(text: str) -> str:
    return _utf8(text).decode()
