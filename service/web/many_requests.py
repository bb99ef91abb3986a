"""What is done with many requests at once: retried, exported."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.errors import BadRequest
from service.inbox import Filter, Inbox
from service.operations.bulk import Bulk, pages
from service.operations.insights import cleaned, shown, when
from service.web.http import JSON, json_object
from service.web.requests import filter_of
from service.web.table import FILTERS, checked

IDS = 10_000
BODY = 1 << 20  # bytes


class ManyRequests:
    """The endpoints."""

    def __init__(self, store: Inbox, bulk: Bulk) -> None:
        self._store = store
        self._bulk = bulk

    async def retry(self, request: Request) -> Response:
        """POST /requests/retry"""
        body = await json_object(request, BODY)
        wanted = _wanted(body)
        request.state.target = orjson.dumps(body).decode()
        job = await self._bulk.retry(wanted, request.state.who.name)
        return await self._job(job.id, status=202)

    async def job(self, request: Request) -> Response:
        """GET /jobs/{id}"""
        return await self._job(request.path_params["id"])

    async def _job(self, id: str, status: int = 200) -> Response:
        job, state = await self._bulk.job(id)
        document = {
            "id": job.id,
            "kind": job.kind,
            "who": job.who,
            "state": state,
            "looked_at": job.looked_at,
            "done": job.done,
            "started_at": when(job.started_at),
            "ended_at": when(job.ended_at),
            "error": job.error,
        }
        return JSON(document, status_code=status, headers={"location": f"/jobs/{job.id}"})

    async def export(self, request: Request) -> Response:
        """GET /requests/export: JSON lines."""
        headers = {
            "content-disposition": 'attachment; filename="requests.jsonl"',
            "x-content-type-options": "nosniff",
        }
        lines = self._lines(filter_of(request.state.query))
        return StreamingResponse(lines, media_type="application/jsonl", headers=headers)

    async def _lines(self, wanted: Filter) -> AsyncIterator[bytes]:
        async for rows in pages(self._store, wanted, whole=True):
            yield b"".join(orjson.dumps(cleaned(shown(row, whole=True))) + b"\n" for row in rows)


def _wanted(body: Mapping[str, Any]) -> Filter | list[str]:
    """A filter, or ids. Raises BadRequest."""
    if unknown := set(body) - {"ids", "filter"}:
        raise BadRequest(f"unknown field {sorted(unknown)[0][:40]!r}", code="bad_field")
    if ("ids" in body) == ("filter" in body):
        raise BadRequest('give "ids" or "filter"; {} finds all', code="bad_field")
    if "ids" in body:
        ids = body["ids"]
        if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
            raise BadRequest('"ids" is a list of strings', code="bad_field")
        if not 1 <= len(ids) <= IDS:
            raise BadRequest(f'"ids" has 1 to {IDS} of them', code="bad_field")
        return list(dict.fromkeys(ids))
    given = body["filter"]
    if not isinstance(given, dict):
        raise BadRequest('"filter" is an object', code="bad_field")
    if not all(isinstance(value, str) for value in given.values()):
        raise BadRequest("what a filter wants is a string", code="bad_field")
    wanted = filter_of(checked(FILTERS, given))
    if wanted.state is not None and wanted.state not in ("failed", "expired"):
        raise BadRequest("only failed and expired requests are retried", code="bad_field")
    return wanted
