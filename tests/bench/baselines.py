"""What people use in our place, each as a process: `python -m tests.bench.baselines NAME …`.

* bare      uvicorn, 202 to every POST, nothing else: what our HTTP server can do at all
* sdk       a loop over the openai SDK, on its fastest transport, nothing kept
* webhook   a webhook as one writes it first: it waits for the model, then publishes
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import time
from typing import Any

import httpx
import openai
import orjson
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.bench.load import question

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """POST → 202 as an ASGI application."""
    while (await receive()).get("more_body"):
        pass
    body = b'{"accepted":1,"duplicates":0}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"29")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def plain_webhook(model: str, emqx: str) -> Starlette:
    """A user's webhook: ask, wait, publish, answer."""
    client = openai.AsyncOpenAI(api_key="none", base_url=model)
    http = httpx.AsyncClient(base_url=emqx, auth=("key", "secret"))

    async def endpoint(request: Request) -> JSONResponse:
        message = await request.json()
        completion = await client.chat.completions.create(
            model="gpt-5.4-mini",
            messages=[SYSTEM, {"role": "user", "content": message["payload"]}],
        )
        reply = {
            "topic": message["topic"].replace("/request/", "/response/"),
            "payload": completion.choices[0].message.content,
            "qos": 1,
        }
        await http.post("/api/v5/publish", json=reply)
        return JSONResponse({"ok": True}, status_code=202)

    return Starlette(routes=[Route("/webhook", endpoint, methods=["POST"])])


async def _serve(app: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(app, lifespan="off", access_log=False, log_level="error")
        await uvicorn.Server(config).serve(sockets=[listening])


async def _sdk(base_url: str) -> None:
    """Reads "count concurrency" lines, asks that much, prints the seconds it took."""
    http = openai.DefaultAioHttpClient()
    client = openai.AsyncOpenAI(api_key="none", base_url=base_url, max_retries=0, http_client=http)

    async def ask(numbers: Any) -> None:
        for number in numbers:
            messages: Any = [SYSTEM, {"role": "user", "content": question("sdk", number)}]
            await client.chat.completions.create(model="gpt-5.4-mini", messages=messages)

    print(0, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, concurrency = map(int, line.split())
        numbers = iter(range(count))
        began = time.monotonic()
        await asyncio.gather(*(ask(numbers) for _ in range(concurrency)))
        print(orjson.dumps(time.monotonic() - began).decode(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["bare", "sdk", "webhook"])
    parser.add_argument("--model", default="")
    parser.add_argument("--emqx", default="")
    options = parser.parse_args()
    if options.name == "sdk":
        uvloop.run(_sdk(options.model))
    elif options.name == "webhook":
        uvloop.run(_serve(plain_webhook(options.model, options.emqx)))
    else:
        uvloop.run(_serve(bare))


if __name__ == "__main__":
    main()
