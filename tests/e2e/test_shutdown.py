"""Shut down without losing what EMQX is about to send: it drops a message when a connection
breaks under it, so nothing is reset and nothing is closed that it may be writing to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from service.bootstrap import Service
from service.server import bind, make_server
from service.web.app import create_app
from tests.e2e.test_process import shutting_down
from tests.fakes.model import hang
from tests.process import house
from tests.rig import OPERATOR_AUTH, WEBHOOK, eventually, load_flows, make_settings


def webhook(number: int, token: str = WEBHOOK) -> bytes:
    """A rule output as EMQX posts it."""
    body = json.dumps(
        {
            "flow": "chat",
            "id": f"m{number:031d}",
            "clientid": "ada",
            "topic": "chatgpt/request/ada",
            "payload": f"question {number}",
            "publish_received_at": int(time.time() * 1000),
        }
    ).encode()
    head = f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    return b"POST /webhook HTTP/1.1\r\nhost: localhost\r\n" + head.encode() + body


class Wire:
    """One connection, as EMQX holds it."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)

    def ask(self, data: bytes) -> bytes:
        self.sock.sendall(data)
        return self.sock.recv(65536)

    def closed_by_peer(self) -> bool:
        """Whether its FIN has come, after all else; raises ConnectionResetError for a reset."""
        self.sock.setblocking(False)
        try:
            while self.sock.recv(65536):  # an answer's body may come after its head
                pass
            return True
        except BlockingIOError:
            return False
        finally:
            self.sock.settimeout(20)


@pytest.fixture
def wire() -> Iterator[Callable[[int], Wire]]:
    """Opens connections, and closes them in the end."""
    made: list[Wire] = []

    def connect(port: int) -> Wire:
        made.append(Wire(port))
        return made[-1]

    yield connect
    for one in made:
        one.sock.close()


async def test_while_work_is_finished_webhooks_get_503_and_are_closed_half(tmp_path, wire):
    async with house(tmp_path) as (process, _, model, client):
        model.script(hang())
        used, idle = wire(process.port), wire(process.port)
        assert b" 202 " in await asyncio.to_thread(used.ask, webhook(1))
        assert b" 202 " in await asyncio.to_thread(idle.ask, webhook(2))
        await model.wait_for_calls(1, timeout=20)
        ending = asyncio.create_task(process.end(signal.SIGTERM))
        await eventually(lambda: shutting_down(process.url))

        answer = await asyncio.to_thread(used.ask, webhook(3))
        assert b" 503 " in answer
        assert b"shutting_down" in answer
        assert b"retry-after" in answer
        late = wire(process.port)
        assert b" 503 " in await asyncio.to_thread(late.ask, webhook(4))

        model.release()
        wires = (used, idle, late)
        await eventually(lambda: all(one.closed_by_peer() for one in wires))
        assert process.process.poll() is None  # it is there until they have closed, too
        used.sock.sendall(webhook(5))  # a reset would come back for this
        await asyncio.sleep(0.2)
        assert used.closed_by_peer()
        for one in wires:
            one.sock.close()
        assert await ending == 0
        assert "Traceback" not in process.log.read_text()


async def test_what_waits_in_the_listen_queue_is_answered(tmp_path, wire):
    async with house(tmp_path) as (process, *_):
        (worker,) = process.workers
        os.kill(worker, signal.SIGSTOP)
        waiting = [wire(process.port) for _ in range(20)]
        for number, one in enumerate(waiting):
            one.sock.sendall(webhook(number))
        process.process.send_signal(signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)
        answers = [await asyncio.to_thread(one.sock.recv, 65536) for one in waiting]
        assert all(b" 503 " in answer or b" 202 " in answer for answer in answers), answers
        for one in waiting:
            one.sock.close()
        assert await process.end(signal.SIGTERM) == 0


async def test_emqx_connections_are_never_closed_for_being_idle_and_others_are(tmp_path, wire):
    service = Service(
        make_settings(
            openai_api_key="sk-test",
            openai_base_url="http://127.0.0.1:9/v1",
            emqx_url="http://127.0.0.1:9",
            webhook_token=WEBHOOK,
            operator_token="operator-token",
            database_url=f"sqlite:///{tmp_path / 'inbox.db'}",
            grace=0.1,
        ),
        load_flows(None),
        environ={},
    )
    sock = bind("127.0.0.1", 0)
    server = make_server(create_app(service))
    server.config.timeout_keep_alive = 1
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    await eventually(lambda: server.started)
    port = sock.getsockname()[1]
    try:
        emqx, stranger, operator = wire(port), wire(port), wire(port)
        assert b" 202 " in await asyncio.to_thread(emqx.ask, webhook(1))
        assert b" 401 " in await asyncio.to_thread(stranger.ask, webhook(2, "wrong"))
        header = f"authorization: {OPERATOR_AUTH['authorization']}".encode()
        looked = b"GET /requests HTTP/1.1\r\nhost: localhost\r\n" + header + b"\r\n\r\n"
        assert b" 200 " in await asyncio.to_thread(operator.ask, looked)
        await eventually(lambda: stranger.closed_by_peer() and operator.closed_by_peer())
        assert not emqx.closed_by_peer()
        assert b" 202 " in await asyncio.to_thread(emqx.ask, webhook(3))
    finally:
        emqx.sock.close()
        server.should_exit = True
        await serving
