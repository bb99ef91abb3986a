"""The document is the application: every route is in it, and what it says holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from starlette.routing import Route

from service.web.app import create_app
from service.web.openapi import document
from service.web.routes import ENDPOINTS
from tests.rig import rig


async def test_every_route_is_in_the_document_and_the_other_way_round(database: str) -> None:
    async with rig(database) as house:
        app = create_app(house.service)
        routes = {
            (method, re.sub(r":[a-z]+}", "}", route.path))
            for route in app.routes
            if isinstance(route, Route) and route.include_in_schema
            for method in (route.methods or {"POST"}) - {"HEAD"}
        }
        served = (await house.http.get("/openapi.json")).json()
    listed = {
        (method.upper(), path) for path, methods in served["paths"].items() for method in methods
    }
    assert listed == routes


async def test_each_endpoint_lets_in_whom_it_says(database: str) -> None:
    async with rig(database, viewer_token="look") as house:
        viewer = {"authorization": "Bearer look"}
        for endpoint in ENDPOINTS:
            if endpoint.name in ("webhook", "events", "session.login", "session.logout"):
                continue
            path = re.sub(r"{[^}]+}", "x", endpoint.path)
            answer = await house.http.request(
                endpoint.method, path, headers={"authorization": "Bearer nobody"}
            )
            expected = endpoint.access in ("look", "act")
            assert (answer.status_code == 401) == expected, endpoint
            answer = await house.http.request(endpoint.method, path, headers=viewer)
            assert (answer.status_code == 403) == (endpoint.access == "act"), endpoint


def test_the_document_refers_only_to_what_it_has() -> None:
    made = document(ENDPOINTS)
    names = set(re.findall(r"'#/components/schemas/(\w+)'", str(made)))
    assert names == set(made["components"]["schemas"])
    ids = [one["operationId"] for methods in made["paths"].values() for one in methods.values()]
    assert len(ids) == len(set(ids))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links |= {value or "" for name, value in attrs if name in ("src", "href")}
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)


async def test_docs_need_nothing_from_elsewhere(database: str) -> None:
    async with rig(database) as house:
        answer = await house.http.get("/docs")
        page = _Links()
        page.feed(answer.text)
        assert "script" not in page.tags
        assert page.links == {"/docs.css", "/openapi.json"}
        for link in page.links:
            assert (await house.http.get(link)).status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        for endpoint in ENDPOINTS:
            assert re.sub(r":path}", "}", endpoint.path) in answer.text
