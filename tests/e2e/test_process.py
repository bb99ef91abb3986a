"""The service as a process: killed, stopped, started with what can't work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from service.demo.play import Client
from service.demo.standin.broker import StandIn
from service.emqx.config_file import render_filled
from tests.fakes.model import FakeModel, hang
from tests.process import Process, free_port, house
from tests.rig import ROOT, WEBHOOK, command, environment, eventually, load_flows, message


async def test_kill_9_between_202_and_reply_loses_nothing(tmp_path):
    async with house(tmp_path) as (process, _, model, client):
        model.behave(lambda body: hang())
        for number in range(5):
            await client.publish(f"chatgpt/request/u{number}", f"q{number}".encode())
        await model.wait_for_calls(5)
        await process.end(signal.SIGKILL)
        model.behave(None)
        await client.publish("chatgpt/request/late", b"while it was down")
        await process.start()
        answers = {(await message(client, 60))[1] for _ in range(6)}
        assert answers == {*(f"echo: q{n}".encode() for n in range(5)), b"echo: while it was down"}


async def test_sigterm_finishes_what_is_in_hand_and_exits_0(tmp_path):

    async with house(tmp_path) as (process, _, model, client):
        model.script(hang())
        await client.publish("chatgpt/request/ada", b"in hand")
        await model.wait_for_calls(1)
        ending = asyncio.create_task(process.end(signal.SIGTERM))
        await eventually(lambda: shutting_down(process.url))
        model.release()
        assert (await message(client))[1] == b"echo: in hand"
        assert await ending == 0
        log = process.log.read_text()
        assert "Traceback" not in log
        assert "in hand" not in log  # payloads stay out of the log
        assert log.count(" done flow=chat") == 1


async def test_sigterm_gives_back_what_outlasts_its_grace(tmp_path):
    async with house(tmp_path, GRACE="1s") as (process, broker, model, client):
        model.behave(lambda body: hang())
        await client.publish("chatgpt/request/ada", b"takes long")
        await model.wait_for_calls(1)
        assert await process.end(signal.SIGTERM) == 0
        assert model.calls[0].gone or model.in_flight == 1
        await client.publish("chatgpt/request/ada", b"while it was down")
        model.behave(None)
        await process.start()
        heard = [(await message(client, 60))[1] for _ in range(2)]
        assert heard == [b"echo: takes long", b"echo: while it was down"]
        assert "Traceback" not in process.log.read_text()


async def shutting_down(url: str) -> bool:
    async with httpx.AsyncClient() as http:
        return "shutting_down" in (await http.get(f"{url}/readyz")).text


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    values = {
        "OPENAI_API_KEY": "sk-test",
        "EMQX_API_KEY": "k",
        "EMQX_API_SECRET": "s",
        "WEBHOOK_TOKEN": "w" * 32,
        "OPERATOR_TOKEN": "o" * 32,
        "FLOWS": str(ROOT / "flows.toml"),
        **env,
    }
    return subprocess.run(
        command(*args),
        cwd=folder,
        env=environment(**{k: v for k, v in values.items() if v}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


NO_TOKENS = {"WEBHOOK_TOKEN": "", "OPERATOR_TOKEN": ""}


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"OPENAI_API_KEY": ""}, ["OPENAI_API_KEY", "is not set"]),
        ({"OPENAI_API_KEY": "sk-\u2019pasted"}, ["OPENAI_API_KEY", "copy the key once more"]),
        ({"EMQX_API_SECRET": ""}, ["EMQX_API_SECRET", "is not set"]),
        ({"HOST": "0.0.0.0", **NO_TOKENS}, ["WEBHOOK_TOKEN", "OPERATOR_TOKEN", "HOST=0.0.0.0"]),
        ({"FLOWS": "nowhere.toml"}, ["nowhere.toml", "no such file"]),
        ({"PORT": "http"}, ["PORT"]),
        ({"EMQX_URL": "localhost:18083"}, ["EMQX_URL", "http://"]),
        ({"DATABASE_URL": "mysql://x/y"}, ["DATABASE_URL", "sqlite"]),
        ({"DATABASE_URL": "sqlite:////proc/nowhere/x.db"}, ["/proc/nowhere"]),
        ({"WEBHOOK_TOKEN_FILE": "nowhere", **NO_TOKENS}, ["WEBHOOK_TOKEN_FILE", "nowhere"]),
        ({"RETENTION": "soon"}, ["RETENTION", "duration"]),
    ],
)
def test_serve_refuses_what_can_not_work_with_one_clear_line(tmp_path, env, words):
    result = run(tmp_path, "serve", **env)
    assert result.returncode == 1, result.stderr
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert all(line.startswith("emqx-gpt: ") for line in result.stderr.splitlines())


def test_serve_refuses_a_malformed_flows_file_with_line_and_reason(tmp_path):
    (tmp_path / "flows.toml").write_text('[flows.chat]\nrequest = "a/${x}"\nreplay = "b"\n')
    result = run(tmp_path, "serve", FLOWS="flows.toml")
    assert result.returncode == 1
    assert "flows.toml:3" in result.stderr
    assert "reply" in result.stderr
    (tmp_path / "flows.toml").write_text("[flows.chat\n")
    result = run(tmp_path, "serve", FLOWS="flows.toml")
    assert "flows.toml:1" in result.stderr


def test_a_command_that_asks_no_model_does_not_wait_for_its_client_to_load(tmp_path):
    code = "import sys, service.cli; sys.exit(len({'openai', 'aiohttp'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment())
    assert loaded.returncode == 0


def test_serve_names_a_taken_port(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run(tmp_path, "serve", PORT=str(port))
    assert result.returncode == 1
    assert str(port) in result.stderr
    assert "PORT" in result.stderr


async def test_serve_apply_brings_the_broker_in_step_for_replicas_that_start_together(tmp_path):
    async with StandIn() as broker, FakeModel() as model:
        first = Process(tmp_path, broker, model)
        second = Process(
            tmp_path, broker, model, PUBLIC_URL=first.url, DATABASE_URL="sqlite:///second.db"
        )
        client = Client("127.0.0.1", broker.mqtt_port)
        try:
            for process in (first, second):
                process.launch("--apply")
            done = "EMQX's half is up to date"
            for process in (first, second):
                await eventually(lambda process=process: done in process.log.read_text(), 60)
            await client.connect()
            await client.subscribe(["chatgpt/response/ada"])
            await client.publish("chatgpt/request/ada", b"hi")
            assert (await message(client))[1] == b"echo: hi"
            for process in (first, second):
                assert await process.end(signal.SIGTERM) == 0
                assert "Traceback" not in process.log.read_text()
        finally:
            await client.close()
            for process in (first, second):
                await process.end(signal.SIGKILL)


async def test_serve_apply_waits_for_a_broker_that_comes_later(tmp_path):
    async with FakeModel() as model:
        broker = StandIn(rest_port=free_port())
        process = Process(tmp_path, broker, model)
        try:
            await process.start("--apply")  # it serves before the broker is there
            await eventually(lambda: "not up to date yet" in process.log.read_text())
            async with broker:
                await eventually(lambda: "half is up to date" in process.log.read_text(), 60)
        finally:
            await process.end(signal.SIGTERM)


async def test_workers_share_a_port_and_a_dead_one_is_started_again(tmp_path, shared_database):
    env = {"DATABASE_URL": shared_database, "GRACE": "5s"}
    async with StandIn() as broker, FakeModel() as model:
        process = Process(tmp_path, broker, model, **env)
        client = Client("127.0.0.1", broker.mqtt_port)
        try:
            await process.start("--workers", "2")
            await broker.load(render_filled(load_flows(None), process.url, WEBHOOK))
            await client.connect()
            await client.subscribe(["chatgpt/response/#"])
            await eventually(lambda: process.log.read_text().count("ready:") == 2)
            first = process.workers
            assert len(first) == 2
            os.kill(first[0], signal.SIGKILL)
            again = "starting it again"
            await eventually(lambda: again in process.log.read_text())
            await eventually(lambda: process.log.read_text().count("ready:") == 3)
            for number in range(6):
                await client.publish(f"chatgpt/request/u{number}", b"hi")
            heard = {(await message(client))[0] for _ in range(6)}
            assert len(heard) == 6
            assert await process.end(signal.SIGTERM) == 0
            assert process.log.read_text().count("stopped") == 2
        finally:
            await client.close()
            await process.end(signal.SIGKILL)


async def test_workers_end_with_the_process_that_started_them(tmp_path, shared_database):
    env = {"DATABASE_URL": shared_database, "GRACE": "5s"}
    async with StandIn() as broker, FakeModel() as model:
        process = Process(tmp_path, broker, model, **env)
        try:
            await process.start("--workers", "2")
            await eventually(lambda: process.log.read_text().count("ready:") == 2)
            await process.end(signal.SIGKILL)
            await eventually(lambda: process.log.read_text().count("stopped") == 2)
        finally:
            await process.end(signal.SIGKILL)


def test_workers_want_postgresql(tmp_path):
    result = run(tmp_path, "serve", "--workers", "2")
    assert result.returncode == 1
    assert "PostgreSQL" in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_secret_can_come_from_a_file(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    env = {"WEBHOOK_TOKEN_FILE": str(tmp_path / "token")}
    async with StandIn() as broker, FakeModel() as model:
        process = Process(tmp_path, broker, model, **env)
        del process._env["WEBHOOK_TOKEN"]
        try:
            await process.start()
            async with httpx.AsyncClient() as http:
                headers = {"authorization": "Bearer from-file"}
                body = {"id": "1", "topic": "chatgpt/request/a", "payload": "x"}
                answer = await http.post(f"{process.url}/webhook", json=body, headers=headers)
                assert answer.status_code == 202
        finally:
            await process.end(signal.SIGTERM)


def test_mosquitto_clients_join_the_demo_as_printed(tmp_path):
    """The very commands that the demo prints, run by a shell."""
    log = tmp_path / "demo.log"
    env = environment(COLUMNS="200", FLOWS=str(ROOT / "flows.toml"))
    with log.open("wb") as out:
        process = subprocess.Popen(command("demo"), cwd=tmp_path, env=env, stdout=out, stderr=out)
    try:
        ends = time.monotonic() + 90
        while "emqx-gpt --env demo.env emqx apply" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.1)
        screen = log.read_text()
        subscribe = re.search(r"mosquitto_sub .*", screen)[0]
        publish = re.search(r"mosquitto_pub .*", screen)[0]
        with subprocess.Popen(
            f"exec {subscribe} -C 1 -W 30", shell=True, stdout=subprocess.PIPE, text=True
        ) as subscriber:
            # Its output is buffered, so nothing tells when it is subscribed: ask until it hears.
            while subscriber.poll() is None:
                subprocess.run(publish, shell=True, check=True, timeout=60)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subscriber.wait(1)
            assert subscriber.stdout is not None
            heard = subscriber.stdout.read()
        assert heard.startswith("chatgpt/response/you ")
        assert "Sam" in heard
    finally:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    text = log.read_text()
    assert "Every answer came." in text
    assert "Traceback" not in text
