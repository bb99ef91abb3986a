"""All endpoints, in the order in which they are looked at and shown."""

from __future__ import annotations

from typing import Any

from service.web.table import FILTERS, PAGE, TEXT, Endpoint, Needs, Param

ID = Param("id", "the request's id", {"type": "string"}, where="path")
CONVERSATION = (
    Param("flow", "its flow", {"type": "string"}, where="path"),
    Param("conversation", "its key; slashes stay as they are", {"type": "string"}, where="path"),
)


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | {"required": list(required)} if required else schema


_TEXT = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}
_COUNT = {"type": "integer"}
_NEXT = {"type": ["integer", "null"]}
_REQUEST = {"$ref": "#/components/schemas/Request"}
_SESSION = _object("name", "role", name=_TEXT, role=_TEXT, csrf=_MAYBE)

_RATE = {"type": ["number", "null"]}
_STATS = _object("requests", "saved", "success", "tokens", "cost", requests=_COUNT,
                 saved=_COUNT, success=_RATE,
                 p50_ms=_RATE, p95_ms=_RATE, tokens=_COUNT, cost={"type": "number"})  # fmt: skip
_JOB = _object("id", "state", "looked_at", "done", id=_TEXT, state=_TEXT, looked_at=_COUNT,
               done=_COUNT, started_at=_TEXT, ended_at=_MAYBE, error=_MAYBE)  # fmt: skip
_PAUSED = _object("paused", "circuits", paused={"type": "array"}, circuits={"type": "array"})
_YES_OR_NO = {"type": "boolean"}
_FLOW = _object("name", "description", "input", "collects", "memory", "acts", name=_TEXT,
                description=_MAYBE, input=_TEXT, collects=_YES_OR_NO, memory=_YES_OR_NO,
                acts=_YES_OR_NO)  # fmt: skip

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST",
        "/webhook",
        "webhook",
        "One message of EMQX's rule: stored, then answered. Every other answer than 202 and 503"
        " makes EMQX drop the message.",
        Needs.WEBHOOK,
        body=_object("id", "topic", id=_TEXT, topic=_TEXT, payload={}, flow=_TEXT, qos=_COUNT),
        answers={202: "committed to disk"},
        answer=_object("accepted", "duplicates", accepted=_COUNT, duplicates=_COUNT),
        errors=(400, 408, 413, 503),
    ),
    Endpoint(
        "POST",
        "/ask/{flow}",
        "ask",
        "A question over HTTP. With `Prefer: wait=N` the reply if it comes within N s; with"
        " `Accept: text/event-stream` the reply piece by piece: events whose data is JSON,"
        ' `{"delta"}` each, then `{"reply"}`, then `[DONE]`.',
        Needs.ACT,
        params=(
            Param("flow", "the flow's name", {"type": "string"}, where="path"),
            Param("Prefer", "`wait=N`: seconds to wait, at most 300", where="header"),
            Param(
                "Idempotency-Key",
                "the same key is the same question; with another one it is refused (422)",
                where="header",
            ),
        ),
        body=_object(
            "text", text=_TEXT, topic=_TEXT, conversation=_TEXT, publish={"type": "boolean"}
        ),
        answers={202: "stored; `Location` says where to look it up", 200: "the reply"},
        errors=(404, 413, 415, 422, 429, 502, 503, 504),
    ),
    Endpoint(
        "GET",
        "/requests",
        "requests.list",
        "The inbox, newest first. A page that did not come to the end has `next`, to be given as"
        " `before`; what arrives meanwhile moves nothing. Where a filter has to look at many"
        " requests it stops after a while: then `looked_to` says how far back it looked, and"
        " `next` goes on from there.",
        params=(*FILTERS, *PAGE),
        answer=_object(
            *("requests", "next", "looked_to"),
            requests={"type": "array", "items": _REQUEST},
            next=_NEXT,
            looked_to=_MAYBE,
        ),
    ),
    Endpoint(
        "GET",
        "/requests/export",
        "requests.export",
        "All requests that the filter finds, whole, newest first, one JSON object a line.",
        params=FILTERS,
        media="application/jsonl",
    ),
    Endpoint(
        "POST",
        "/requests/retry",
        "requests.retry_many",
        "Retry all failed and expired requests that a filter finds, or those with these ids, in the"
        " background; `Location` says where to read how far it is.",
        Needs.ACT,
        body=_object(
            ids={"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 10_000},
            filter=_object(**{one.name: dict(one.schema) for one in FILTERS}),
        ),
        answers={202: "begun"},
        answer=_JOB,
        errors=(409, 413, 415),
        act="retry many",
    ),
    Endpoint(
        "GET",
        "/jobs/{id}",
        "jobs.show",
        "How far an act on many requests is: how many it looked at, to how many it was done. It is"
        " `running`, `done`, `failed`, or `interrupted` with its process.",
        params=(Param("id", "the job's id", {"type": "string"}, where="path"),),
        answer=_JOB,
        errors=(404,),
    ),
    Endpoint(
        "GET",
        "/requests/{id}",
        "requests.show",
        "One request, whole: question, reply, under `timeline` what happened when, under `waits`"
        " what its tool calls wait or waited for, under `unsettled` those of which a person has to"
        " say what became of them.",
        params=(ID,),
        answer=_REQUEST,
        errors=(404,),
    ),
    Endpoint(
        "POST",
        "/requests/{id}/retry",
        "requests.retry",
        "A failed or expired request goes to the end of the queue with a new deadline; with"
        " `payload`, that is asked instead. Not where a tool call is unsettled.",
        Needs.ACT,
        params=(ID,),
        body=_object(payload=_TEXT),
        answers={202: "queued again"},
        answer=_REQUEST,
        errors=(404, 409, 413, 415),
        act="retry",
    ),
    Endpoint(
        "POST",
        "/requests/{id}/confirm",
        "requests.confirm",
        "A person's answer to what a tool call asks before it acts; silence is no. With `call_id`"
        " where several questions are open, with `pin` where the tool wants one. It has the effect"
        " of an answer over MQTT, and the first one counts.",
        Needs.ACT,
        params=(ID,),
        body=_object(
            "answer", answer={"type": "string", "enum": ["yes", "no"]}, call_id=_TEXT, pin=_TEXT
        ),
        answers={200: "taken"},
        answer=_REQUEST,
        errors=(404, 409, 415),
        act="confirm",
    ),
    Endpoint(
        "POST",
        "/requests/{id}/settle",
        "requests.settle",
        "Say what became of tool calls that may have been carried out and must not be repeated,"
        " of one (`call_id`) or of all of an ended request. Then it can be retried.",
        Needs.ACT,
        params=(ID,),
        body=_object(
            "outcome",
            outcome={"type": "string", "enum": ["committed", "refused"]},
            call_id=_TEXT,
        ),
        answers={200: "settled"},
        answer=_REQUEST,
        errors=(404, 409, 415),
        act="settle",
    ),
    Endpoint(
        "POST",
        "/requests/{id}/replay",
        "requests.replay",
        "Ask a request again and compare, without publishing, storing or remembering anything: what"
        " it said `before`, and what it says now, `after`. Commands count as done and are not"
        " carried out; a look-up is told what it was told then. With `model`, that one is asked.",
        Needs.ACT,
        params=(ID,),
        body=_object(model=_TEXT),
        answer=_object("before", "after", "same_text", "same_calls", "memory"),
        errors=(404, 409, 413, 415),
        act="replay",
    ),
    Endpoint(
        "DELETE",
        "/requests/{id}",
        "requests.forget",
        "Forget a request that has ended.",
        Needs.ACT,
        params=(ID,),
        answer=_object("forgotten", forgotten=_COUNT),
        errors=(404, 409),
        act="forget",
    ),
    Endpoint(
        "GET",
        "/stats",
        "stats",
        "How each flow did over an hour, a day or a week: requests, success, times to the reply,"
        " tokens, money; with a series for a chart.",
        params=(
            Param(
                "window",
                "how far back",
                {"type": "string", "enum": ["hour", "day", "week"], "default": "hour"},
            ),
        ),
        answer=_object(
            *("window", "total", "flows", "series"),
            window=_TEXT,
            since=_TEXT,
            width_s=_COUNT,
            total=_STATS,
            flows={"type": "object", "additionalProperties": _STATS},
            series={"type": "array", "items": _STATS},
        ),
    ),
    Endpoint(
        "GET",
        "/conversations",
        "conversations.list",
        "Conversations, those with the latest requests first.",
        params=(Param("flow", "only of this flow", TEXT), *PAGE),
        answer=_object("conversations", "next", conversations={"type": "array"}, next=_NEXT),
    ),
    Endpoint(
        "GET",
        "/conversations/{flow}/{conversation:path}",
        "conversations.show",
        "What a conversation remembers.",
        params=CONVERSATION,
        errors=(404,),
    ),
    Endpoint(
        "DELETE",
        "/conversations/{flow}/{conversation:path}",
        "conversations.forget",
        "Forget what a conversation remembers; its requests stay.",
        Needs.ACT,
        params=CONVERSATION,
        answer=_object("forgotten", forgotten=_COUNT),
        errors=(404,),
        act="forget conversation",
    ),
    Endpoint(
        "GET",
        "/events",
        "events",
        "Server-sent events: at most two a second with what changed and the totals. `hello` comes"
        " first, then `changes`; a comment every 15 s keeps the connection.",
        answers={200: "a stream without end"},
        errors=(503,),
        media="text/event-stream",
    ),
    Endpoint(
        "GET",
        "/flows",
        "flows",
        "The flows, in the order of the file: what each is for, what it is asked with (`input`),"
        " whether it remembers conversations, and whether it may do something beside answering"
        " (`acts`).",
        answer=_object("flows", flows={"type": "array", "items": _FLOW}),
    ),
    Endpoint(
        "GET",
        "/paused",
        "controls.list",
        "What people paused, in all replicas, and which providers and models this one does not call"
        " now by itself.",
        answer=_PAUSED,
    ),
    *(
        Endpoint(
            "POST",
            f"/{kind}/{{name}}/{act}",
            f"controls.{act}",
            about,
            Needs.ACT,
            params=(Param("name", f"the {kind[:-1]}'s name", {"type": "string"}, where="path"),),
            answer=_PAUSED,
            errors=(404,),
            act=act,
        )
        for kind, act, about in (
            ("flows", "pause", "Its requests are stored and wait, until their deadlines."),
            ("flows", "resume", "Go on with what waits."),
            ("providers", "pause", "Its models are not called; a flow's fallback is, elsewhere."),
            ("providers", "resume", "Call it again."),
        )
    ),
    Endpoint(
        "GET",
        "/acts",
        "acts.list",
        "Who did what, newest first.",
        params=PAGE,
        answer=_object("acts", "next", acts={"type": "array"}, next=_NEXT),
    ),
    Endpoint(
        "GET",
        "/session",
        "session.show",
        "Who calls, and, by cookie, the word that an act by cookie has to carry (header"
        " `X-CSRF-Token` or a form's field `csrf`).",
        answer=_SESSION,
    ),
    Endpoint(
        "POST",
        "/login",
        "session.login",
        "A session of 12 hours, as a cookie, for who has a token. A form gets 303 to `next`"
        " (default `/`), or back to `/login?error=CODE&next=…`.",
        Needs.OPEN,
        body=_object("token", token=_TEXT),
        answers={200: "logged in; the cookie is set", 303: "a form: on to the page"},
        answer=_SESSION,
        errors=(401, 413, 415, 429),
    ),
    Endpoint(
        "POST",
        "/logout",
        "session.logout",
        "End the session of this browser.",
        Needs.OPEN,
        answers={200: "logged out", 303: "a form: to `/login`"},
        errors=(403, 413),
    ),
    Endpoint("GET", "/openapi.json", "described.openapi", "This API, for programs.", Needs.OPEN),
    Endpoint("GET", "/docs", "described.docs", "This page.", Needs.OPEN, media="text/html"),
    Endpoint("GET", "/docs.css", "described.style", "Its style.", Needs.OPEN, media="text/css"),
    Endpoint(
        "GET",
        "/healthz",
        "healthz",
        "Alive: the event loop runs.",
        Needs.OPEN,
        media="text/plain",
        open_query=True,
    ),
    Endpoint(
        "GET",
        "/readyz",
        "readyz",
        "Able to take and answer: database, broker and model, each named.",
        Needs.OPEN,
        answers={200: "all work", 503: "one does not"},
        open_query=True,
    ),
    Endpoint(
        "GET",
        "/metrics",
        "metrics",
        "Prometheus' text format.",
        Needs.OPEN,
        media="text/plain",
        open_query=True,
    ),
)
