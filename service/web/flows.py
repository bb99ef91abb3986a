"""GET /flows: what programs may ask, and what each is for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from service.flows import Catalogue
from service.web.http import JSON


class FlowsApi:
    """The endpoint."""

    def __init__(self, flows: Catalogue) -> None:
        self._flows = flows

    async def list(self, request: Request) -> Response:
        """In the order of the file."""
        return JSON(
            {
                "flows": [
                    {
                        "name": flow.name,
                        "description": flow.description,
                        "input": flow.input,
                        "collects": flow.collect is not None,
                        "memory": flow.history is not None,
                        "acts": bool(flow.tools_from) or any(tool.topic for tool in flow.tools),
                    }
                    for flow in self._flows.flows.values()
                ]
            }
        )
