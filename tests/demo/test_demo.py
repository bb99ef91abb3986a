"""`emqx-gpt demo` as a person sees it: a process, its screen, real MQTT clients beside it."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from rich.cells import cell_len

from service.demo.play import Client
from tests.fakes.model import FakeModel
from tests.rig import command, environment

CHAT = """
[flows.chat]
request = "talk/${user}/in"
reply   = "talk/${user}/out"
history = { messages = 10 }
"""
ALARM = """
[flows.alarm]
request = "sensors/${device}/telemetry"
where   = "is_num(payload.temperature) and payload.temperature > 80"
prompt  = "Sensor ${device} reads ${payload.temperature} °C; its limit is 80 °C."
reply   = "alerts/${device}"
"""
VALVES = """
[flows.valves]
request = "garden/${who}/ask"
reply   = "garden/${who}/say"
[[flows.valves.tools]]
name = "set_valve"
description = "Open or close a valve of the garden"
topic = "garden/valves/${valve}/set"
[flows.valves.tools.parameters]
type = "object"
required = ["valve", "open"]
properties.valve = { enum = ["north", "south"] }
properties.open = { type = "boolean" }
"""
TELEMETRY = """
[flows.soil]
request = "farm/${field}/telemetry"
where   = "is_num(payload.soil.moisture) and payload.soil.moisture < 20 and payload.crop = 'wheat'"
prompt  = "Field ${field}: ${payload.soil.moisture} % moisture."
reply   = "farm/${field}/advice"
"""


RPC = """
[flows.rpc]
request = "ask/${client}"
reply   = "answer/${client}"
allow_response_topics = ["answer/#"]
format  = "json"
"""


PIECES = """
[flows.pieces]
request = "panels/in"
reply   = "panels/out"
chunk   = 40
"""


class Demo:
    """A running demo and what it has shown so far."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process, self.folder, self.screen = process, folder, ""

    async def until(self, text: str, seconds: float = 60) -> str:
        """Read the screen until `text` is on it, after what was read before; returns the news."""
        assert self.process.stdout is not None
        news = ""
        async with asyncio.timeout(seconds):
            while text not in news:
                piece = await self.process.stdout.read(4096)
                assert piece, f"it ended before {text!r}:\n{self.screen}"
                news += piece.decode(errors="replace")
                self.screen += piece.decode(errors="replace")
        return news

    @property
    def mqtt_port(self) -> int:
        return int(re.search(r"mqtt://[\d.]+:(\d+)", self.screen)[1])  # type: ignore[index]

    async def ask(self, topic: str, text: str) -> None:
        client = Client("127.0.0.1", self.mqtt_port, "visitor")
        await client.connect()
        await client.publish(topic, text.encode())
        await client.close()

    async def run(self, *args: str) -> tuple[int, str]:
        """Another command in the same folder, against this demo."""
        return await run(self.folder, "--env", "demo.env", *args)


async def run(folder: Path, *args: str, **env: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command(*args),
        cwd=folder,
        env=environment(**env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@contextlib.asynccontextmanager
async def demo(folder: Path, flows: str, *args: str, **env: str) -> AsyncIterator[Demo]:
    (folder / "flows.toml").write_text(flows)
    process = await asyncio.create_subprocess_exec(
        *command("demo", *args),
        cwd=folder,
        env=environment(**env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Demo(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


def too_wide(screen: str) -> list[str]:
    return [line for line in screen.splitlines() if cell_len(line) > 80]


async def test_each_flow_of_ones_own_is_played(tmp_path: Path) -> None:
    (tmp_path / "flows.toml").write_text(CHAT + ALARM + VALVES + TELEMETRY + RPC + PIECES)
    code, screen = await run(tmp_path, "demo", "--once")
    assert code == 0, screen
    assert "talk/ada/in ◀ Hello! My name is Ada." in screen  # a topic moved
    assert "Your name is Ada." in screen
    assert re.search(r'◀ {"temperature": 8\d.*\n  alerts/\w+ ▶ .*Attention', screen)  # a where
    assert re.search(r'garden/valves/north/set ▶\s+\{"valve":"north","open":true', screen)
    assert re.search(r"farm/\w+/advice ▶ \(offline model\)", screen)
    asked, told = screen.split("ask/ada ◀")[1].split("answer/ada/1 ▶")
    assert "MQTT 5: Response-Topic answer/ada/1, Correlation-Data 00000001" in asked
    assert "MQTT 5: Correlation-Data 00000001" in told  # four bytes that are no text, unchanged
    pieces = re.findall(r"panels/out ▶ (\d)/(\d) ", screen)
    assert len(pieces) > 1
    assert pieces[-1] == (str(len(pieces)),) * 2  # the last flow's last piece is seen too
    assert "Every answer came." in screen
    assert too_wide(screen) == []
    assert files(tmp_path, "demo*.env") == []


async def test_it_stays_for_others_and_takes_a_changed_file(tmp_path: Path) -> None:
    async with demo(tmp_path, CHAT + ALARM) as running:
        await running.until("Ctrl-C ends the demo.")
        assert "mosquitto_pub" in running.screen
        assert stat.S_IMODE((tmp_path / "demo.env").stat().st_mode) == 0o600

        code, listed = await running.run("requests", "list", "--json")
        assert code == 0, listed
        assert {json.loads(line)["flow"] for line in listed.splitlines()} == {"chat", "alarm"}
        assert (await running.run("emqx", "diff"))[0] == 0
        code, said = await running.run("emqx", "doctor")
        assert code == 0, said
        assert "skip" not in said

        await running.ask("talk/sam/in", "Hello! I am Sam.")
        news = await running.until("Nice to meet you, Sam!")
        assert "talk/sam/in ◀ Hello! I am Sam." in news

        await running.ask("talk/in", "anybody?")
        await running.until("no flow listens here")

        (tmp_path / "flows.toml").write_text(CHAT + "[flows.chat\n")
        news = await running.until("no valid TOML")
        assert "the flows from before stay" in news
        await running.ask("talk/sam/in", "What is my name?")
        await running.until("Your name is Sam.")
        (tmp_path / "flows.toml").write_text(CHAT + ALARM)
        await running.until("is mended: the flows are as before")

        (tmp_path / "flows.toml").write_text(CHAT.replace("talk/", "speak/") + VALVES)
        news = await running.until("-m 'set valve north open'")
        assert "has changed and is live" in news
        assert "gone: alarm" in news
        await running.ask("speak/sam/in", "What is my name?")
        await running.until("Your name is Sam.")  # its memory is the flow's, not the topic's
        assert (await running.run("emqx", "diff"))[0] == 0

        running.process.send_signal(signal.SIGINT)
        assert await running.process.wait() == 0
        assert too_wide(running.screen) == []
        assert files(tmp_path, "demo*.env") == []


async def test_flows_that_check_refuses_start_nothing(tmp_path: Path) -> None:
    (tmp_path / "flows.toml").write_text('[flows.chat]\nrequest = "a/#/b"\nreply = "b"\n')
    code, screen = await run(tmp_path, "demo")
    assert code == 1
    assert "flows.toml:2" in screen
    assert "mqtt://" not in screen


async def test_flows_may_be_elsewhere_and_must_be_somewhere(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(CHAT)
    code, screen = await run(tmp_path, "demo", "--once", FLOWS="mine.toml")
    assert code == 0, screen
    assert "mine.toml: chat" in screen
    code, screen = await run(tmp_path, "demo", "--once", FLOWS="yours.toml")
    assert code == 1
    assert "there is no such file" in screen
    assert "emqx-gpt init" in screen


async def test_demos_that_start_at_the_same_moment_share_the_ports_out(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
        (folder / "flows.toml").write_text(CHAT)
    for code, screen in await asyncio.gather(*(run(one, "demo", "--once") for one in folders)):
        assert (code, "Every answer came." in screen) == (0, True), screen


async def test_a_server_of_ones_own_needs_no_key(tmp_path: Path) -> None:
    (tmp_path / "flows.toml").write_text(CHAT)
    async with FakeModel() as model:
        code, screen = await run(tmp_path, "demo", "--once", OPENAI_BASE_URL=model.base_url)
    assert code == 0, screen
    assert "talk/ada/out ▶ echo: What is my name?" in screen
    assert "offline" not in screen


async def test_a_model_that_does_not_answer_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "flows.toml").write_text(CHAT)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        code, screen = await run(tmp_path, "demo", "--once", OPENAI_BASE_URL=url)
        assert code == 1
        assert "can't be reached" in screen
        assert "demo --offline" in screen
        assert "mqtt://" not in screen
        code, screen = await run(tmp_path, "demo", "--once", "--offline", OPENAI_BASE_URL=url)
    assert code == 0, screen


async def test_the_offline_model_plays_other_servers(tmp_path: Path) -> None:
    (tmp_path / "flows.toml").write_text(CHAT)
    code, screen = await run(tmp_path, "demo", "--once", "--model-kind", "lmstudio")
    assert "offline, and plays lmstudio" in screen
    assert code == 0, screen
    code, screen = await run(tmp_path, "demo", "--once", "--model-kind", "nobody")
    assert code == 1
    assert "'nobody' is not known" in screen
    assert "deepseek" in screen


async def test_a_failure_that_is_told_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "flows.toml").write_text(CHAT + "params = { colour = 1 }\n")
    code, screen = await run(tmp_path, "demo", "--once")
    assert code == 1
    assert "Unknown parameter: 'colour'" in " ".join(screen.split())
    assert "[model_refused]" in screen
    assert "Answers that did not come: chat: talk/ada/out (model_refused)" in screen


async def test_it_ends_when_nobody_reads_any_more(tmp_path: Path) -> None:
    async with demo(tmp_path, CHAT) as running:
        await running.until("service")
        running.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            await running.process.wait()
        assert files(tmp_path, "demo*.env") == []


async def test_a_taken_port_and_a_folder_that_takes_no_file(tmp_path: Path) -> None:
    (tmp_path / "demo.env").mkdir()  # as good as no write access, for root too
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with demo(tmp_path, CHAT, PORT=port) as running:
            await running.until("Ctrl-C ends the demo.")
            assert f"Port {port} (service) is taken" in running.screen
            path = re.search(r"--env (\S+/demo\.env) requests list", running.screen)[1]  # type: ignore[index]
            code, listed = await run(tmp_path, "--env", path, "requests", "list", "--json")
            assert code == 0, listed
            assert "chat" in listed


async def test_for_others_in_the_network_it_makes_tokens(tmp_path: Path) -> None:
    async with demo(tmp_path, CHAT, "--host", "127.0.0.2") as running:
        await running.until("Ctrl-C ends the demo.")
        text = (tmp_path / "demo.env").read_text()
        assert re.search(r"^OPERATOR_TOKEN='?[\w-]{20,}", text, re.MULTILINE)
        assert "mosquitto_sub -v -h 127.0.0.2" in running.screen
        assert "it lets everybody in" in " ".join(running.screen.split())
        assert (await running.run("emqx", "doctor"))[0] == 0


async def test_looking_for_requests_makes_no_database(tmp_path: Path) -> None:
    (tmp_path / "flows.toml").write_text(CHAT)
    code, said = await run(tmp_path, "requests", "list")
    assert code == 1
    assert "there is no database emqx-gpt.db yet" in said
    assert files(tmp_path, "*.db*") == []
    code, said = await run(tmp_path, "--env", "nothing.env", "requests", "list")
    assert code == 1
    assert "nothing.env: there is no such file" in said
