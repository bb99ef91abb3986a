"""Is the service's webhook there, and does it want the token that EMQX will send?

The body that is posted can never become a request, so nothing is stored: with the right token
the answer is 400, with another one 401.
"""

from __future__ import annotations

import secrets

import httpx

from service.emqx.message import PROBE
from service.emqx.resources import WEBHOOK_PATH
from service.errors import BrokerError

_BODY = b'{"probe": "emqx-gpt: neither topic nor id, so this is never stored"}'


async def probe(url: str, token: str, *, timeout: float = 5.0) -> None:
    """Returns if all is well. `timeout` in seconds for each of the two calls.

    Raises BrokerError: webhook_unreachable, webhook_token (another one, or any will do),
    webhook_busy (503; 502 of a proxy) or webhook_strange (something else answers there).
    """
    at = f"{url}{WEBHOOK_PATH}"
    async with httpx.AsyncClient(timeout=timeout, follow_redirects=False) as http:
        status = await _post(http, at, token)
        if status == 401:
            raise BrokerError(
                f"{at} refuses our token: the service runs with another WEBHOOK_TOKEN",
                code="webhook_token",
            )
        if status in (429, 502, 503, 504):
            raise BrokerError(
                f"{at} answers {status}: the service is starting, or can't store (its /readyz)",
                code="webhook_busy",
            )
        if status != 400:
            raise BrokerError(
                f"{at} answers {status}, so that is not this service: check PUBLIC_URL",
                code="webhook_strange",
            )
        if await _post(http, at, secrets.token_urlsafe(24)) != 401:
            raise BrokerError(
                f"{at} takes any token: set WEBHOOK_TOKEN for the service too",
                code="webhook_token",
            )


async def _post(http: httpx.AsyncClient, url: str, token: str) -> int:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    headers["user-agent"] = PROBE  # the service need not warn of it
    try:
        answer = await http.post(url, content=_BODY, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        raise BrokerError(
            f"the webhook {url} can't be reached from here: {why}", code="webhook_unreachable"
        ) from None
    return answer.status_code
