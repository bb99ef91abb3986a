"""/openapi.json and /docs, made of the list of endpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service import __version__
from service.domain import Ear, State
from service.web.http import JSON
from service.web.table import Endpoint, Needs, Param

_MAYBE = {"type": ["string", "null"]}
_WAIT = {
    "type": "object",
    "required": ["call_id", "ear", "topic", "until", "open"],
    "properties": {
        "call_id": {"type": "string"},
        "tool": _MAYBE,
        "ear": {"type": "string", "enum": [str(one) for one in Ear]},
        "topic": {"type": "string"},
        "until": {"type": "string", "format": "date-time"},
        "open": {"type": "boolean"},
        "answer": _MAYBE,
        "answered_at": _MAYBE,
        "closed_at": _MAYBE,
        "by": _MAYBE,
        "tries": {"type": "integer"},
        "late": {"type": "integer"},
        "noted": _MAYBE,
        "asked": _MAYBE,
        "pin": {"type": "boolean"},
    },
}
_UNSETTLED = {
    "type": "object",
    "required": ["call_id", "tool", "arguments"],
    "properties": {name: {"type": "string"} for name in ("call_id", "tool", "arguments")},
}
_REQUEST = {
    "type": "object",
    "required": ["id", "state", "flow", "conversation", "accepted_at"],
    "properties": {
        "id": {"type": "string"},
        "seq": {"type": "integer"},
        "flow": _MAYBE,
        "conversation": _MAYBE,
        "state": {"type": "string", "enum": [str(one) for one in State]},
        "topic": {"type": "string"},
        "text": {"type": "string"},
        "said": _MAYBE,
        "accepted_at": {"type": "string", "format": "date-time"},
        "ended_at": _MAYBE,
        "model": _MAYBE,
        "cost": {"type": ["number", "null"]},
        "error": {"type": ["object", "null"]},
        "waits": {"type": "array", "items": _WAIT},
        "unsettled": {"type": "array", "items": _UNSETTLED},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
_WHO = {
    Needs.OPEN: "anybody",
    Needs.WEBHOOK: "EMQX, with WEBHOOK_TOKEN",
    Needs.LOOK: "operators and viewers",
    Needs.ACT: "operators",
}
_BY: dict[Needs, list[dict[str, list[str]]]] = {
    Needs.OPEN: [],
    Needs.WEBHOOK: [{"webhook": []}],
    Needs.LOOK: [{"bearer": []}, {"session": []}],
    Needs.ACT: [{"bearer": []}, {"session": []}],
}
_ALWAYS = {Needs.OPEN: (), Needs.WEBHOOK: (401,), Needs.LOOK: (401, 403, 429)}


def path_of(endpoint: Endpoint) -> str:
    """As OpenAPI writes it."""
    return re.sub(r":path}", "}", endpoint.path)


def errors_of(endpoint: Endpoint) -> list[int]:
    """All statuses with the error shape."""
    always = _ALWAYS.get(endpoint.access, (401, 403, 429))
    taken = endpoint.answers
    body = (408, 413) if endpoint.body is not None else ()
    every = (400, 403, 503, *body, *endpoint.errors, *always)
    return sorted({status for status in every if status not in taken})


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(path_of(endpoint), {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "emqx-gpt",
            "version": __version__,
            "description": "GPT for devices on MQTT. In words: docs/api.md of the project.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Request": _REQUEST, "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "webhook": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "emqx_gpt_session"},
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for number, (status, about) in enumerate(endpoint.answers.items()):
        answers[str(status)] = {"description": about}
        if status < 300:
            schema = endpoint.answer if number == 0 and endpoint.answer else {}
            answers[str(status)]["content"] = {endpoint.media: {"schema": schema}}
    for status in errors_of(endpoint):
        schema = {"$ref": "#/components/schemas/Error"}
        answers[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": schema}},
        }
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.name}.{endpoint.method.lower()}.{path_of(endpoint)}",
        "summary": re.split(r"(?<=[.:;])\s", endpoint.about)[0].rstrip(".:;"),
        "description": endpoint.about,
        "parameters": [_param(param) for param in endpoint.params],
        "responses": answers,
        "security": _BY[endpoint.access],
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": endpoint.body}}
        required = bool(endpoint.body.get("required"))
        operation["requestBody"] = {"required": required, "content": content}
    return operation


def _param(param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "in": param.where,
        "required": param.where == "path",
        "description": param.about,
        "schema": dict(param.schema),
    }


_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1rem; margin: 2.5rem 0 .3rem; overflow-wrap: anywhere }
h2 code { font-size: 1.05rem } h2 b { display: inline-block; min-width: 4.2rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top;
padding: .25rem .8rem .25rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 18%, #0000)
} p { margin: .3rem 0 .6rem } .who { opacity: .75 } pre { overflow-x: auto }
"""


def page(endpoints: Iterable[Endpoint]) -> str:
    """The same to read: one page, nothing from elsewhere, no script."""
    parts = []
    for endpoint in endpoints:
        rows = "".join(
            f"<tr><td><code>{escape(param.name)}</code></td><td>{escape(param.where)}</td>"
            f"<td>{escape(param.about)}{escape(_of(param))}</td></tr>"
            for param in endpoint.params
        )
        body = ""
        if endpoint.body is not None:
            names = ", ".join(endpoint.body.get("properties", {}))
            body = f"<p>JSON body: <code>{escape(names)}</code></p>"
        statuses = [f"{status} {about}" for status, about in endpoint.answers.items()]
        errors = ", ".join(map(str, errors_of(endpoint)))
        table = f"<table><tr><th>name</th><th>in</th><th></th></tr>{rows}</table>" if rows else ""
        parts.append(
            f"<section><h2><b>{endpoint.method}</b> <code>{escape(path_of(endpoint))}</code></h2>"
            f"<p>{escape(endpoint.about)}</p><p class=who>For {_WHO[endpoint.access]}."
            f" Answers: {escape('; '.join(statuses))}. Errors: {errors}.</p>{table}{body}</section>"
        )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>emqx-gpt: the API</title>"
        "<meta name=viewport content='width=device-width'><link rel=stylesheet href=/docs.css>"
        "</head><body><main><h1>emqx-gpt: the API</h1><p>For programs: <a href=/openapi.json>"
        'openapi.json</a>. Errors have one shape: <code>{"error": {"code", "message"}}</code>.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Described:
    """The endpoints; made once."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        endpoints = tuple(endpoints)
        self._document = document(endpoints)
        self._page = page(endpoints)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json"""
        return JSON(self._document)

    async def docs(self, request: Request) -> Response:
        """GET /docs"""
        return Response(self._page, media_type="text/html", headers=_HEADERS)

    async def style(self, request: Request) -> Response:
        """GET /docs.css"""
        return Response(_STYLE, media_type="text/css", headers=_HEADERS)


def _of(param: Param) -> str:
    words = []
    if "enum" in param.schema:
        words.append("one of " + ", ".join(param.schema["enum"]))
    if "minimum" in param.schema:
        words.append(f"{param.schema['minimum']} to {param.schema['maximum']}")
    if "default" in param.schema:
        words.append(f"default {param.schema['default']}")
    return f" ({'; '.join(words)})" if words else ""
