"""`emqx-gpt init`: asked or not, it writes files that work, and no secret for others to read."""

import asyncio
import re
import stat
from pathlib import Path

import pytest

from service import flows
from service.cli.init import reply_topic, write_env
from tests.rig import command, environment


async def init(folder: Path, *args: str, typed: str = "") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command("init", *args),
        cwd=folder,
        env=environment(PYTHONWARNINGS="ignore"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate(typed.encode())
    return process.returncode or 0, out.decode()


async def test_a_first_flow_is_asked_for_and_played(tmp_path: Path) -> None:
    typed = "Be kind.\nlab/#/x\nlab/${who}/ask\n\ny\n\n\nsk-test-key\n"
    code, said = await init(tmp_path, "--no-demo", typed=typed)
    assert code == 0, said
    assert "has # elsewhere than as its whole last level" in said  # asked again
    made = flows.load(tmp_path / "flows.toml").flows["first"]
    assert made.request[0].text == "lab/${who}/ask"
    assert str(made.reply) == "lab/${who}/say"
    assert str(made.system) == "Be kind."
    assert made.history is not None
    env = (tmp_path / ".env").read_text()
    assert "OPENAI_API_KEY=sk-test-key\n" in env
    assert "sk-test-key" not in said
    for name in ("WEBHOOK_TOKEN", "OPERATOR_TOKEN"):
        assert re.search(rf"^{name}=[\w-]{{32}}$", env, re.MULTILINE)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


async def test_only_env_takes_a_key_from_standard_input_and_keeps_what_is_set(tmp_path) -> None:
    args = ("--env-only", "--yes", "--key-file", "-", "--base-url", "http://127.0.0.1:1/v1")
    code, said = await init(tmp_path, *args, typed="sk-from-a-script\n")
    assert code == 0, said
    assert "sk-from" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env"]
    env = (tmp_path / ".env").read_text()
    assert "OPENAI_API_KEY=sk-from-a-script\n" in env
    assert "OPENAI_BASE_URL=http://127.0.0.1:1/v1\n" in env
    assert len(re.findall(r"^\w+_TOKEN=own-", env, re.MULTILINE)) == 2
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    code, said = await init(tmp_path, *args, typed="sk-another\n")
    assert (code, (tmp_path / ".env").read_text()) == (0, env), said


async def test_without_questions_it_is_played_at_once(tmp_path: Path) -> None:
    code, said = await init(tmp_path, "--yes", "--request", "a/+/in", "--does", "Sei kurz.")
    assert code == 0, said
    assert "a/demo/in ◀ Hallo! Was ist MQTT?" in said or "a/demo/in ◀ Hello!" in said
    assert "Every answer came." in said
    env = (tmp_path / ".env").read_text().splitlines()
    assert {"OPENAI_API_KEY=", "EMQX_API_KEY=", "EMQX_API_SECRET="} <= {*env}  # to be filled in


async def test_a_second_flow_is_added_and_nothing_is_overwritten(tmp_path: Path) -> None:
    assert (await init(tmp_path, "-y", "--no-demo"))[0] == 0
    before, env = (tmp_path / "flows.toml").read_text(), (tmp_path / ".env").read_text()
    code, said = await init(tmp_path, "-y", "--no-demo")
    assert code == 1
    assert "has a flow 'first' already" in said
    assert (await init(tmp_path, "-y", "--no-demo", "--name", "two"))[0] == 0
    assert (tmp_path / "flows.toml").read_text().startswith(before)
    assert list(flows.load(tmp_path / "flows.toml").flows) == ["first", "two"]
    assert (tmp_path / ".env").read_text() == env


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--request", "a/#/b"), "--request: "),
        (("--reply", "out/+"), "--reply: "),
        (("--base-url", "localhost"), "is not a URL"),
        (("--key-file", "nothing"), "can't read nothing"),
        (("--name", "no name"), "flow's name"),
    ],
)
async def test_what_can_not_be_used_writes_nothing(
    tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    code, out = await init(tmp_path, "-y", "--no-demo", *args)
    assert code == 1
    assert said in out
    assert not (tmp_path / "flows.toml").exists()
    assert not (tmp_path / ".env").exists()


def test_what_an_env_file_sets_stays(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("export WEBHOOK_TOKEN=mine\nOPERATOR_TOKEN=\nEMQX_API_KEY=key")
    assert write_env(path, {"OPENAI_API_KEY": "sk"}) == ["OPENAI_API_KEY", "OPERATOR_TOKEN"]
    text = path.read_text()
    assert text.startswith("export WEBHOOK_TOKEN=mine\n")
    assert text.count("OPERATOR_TOKEN=") == 1
    assert re.search(r"^EMQX_API_KEY=key$", text, re.MULTILINE)
    assert re.search(r"^OPENAI_API_KEY=sk$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("request_topic", "expected"),
    [
        ("chat/${user}/in", "chat/${user}/out"),
        ("a/+", "reply/a"),
        ("dev/#", "reply/dev"),
        ("gpt/request/${x}", "gpt/response/${x}"),
        ("/xiaomi/chatgpt", "/xiaomi/chatgpt/reply"),
    ],
)
def test_a_reply_topic_beside_a_request_topic(request_topic: str, expected: str) -> None:
    assert reply_topic(request_topic) == expected
