"""The READMEs: both say the same, and each command in them is tried.

Not run are `docker compose` (tests/packaging/test_docker.py checks its file, and runs the line that
makes .env) and `make test`, which this is part of. What `pip` would install is this environment's,
and to `emqx apply` --yes is added, since it asks a person.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values

from service import settings
from service.demo.offline_model.model import OfflineModel
from service.demo.standin.broker import StandIn
from tests.docs.pages import blocks
from tests.examples.program import program
from tests.process import free_port
from tests.rig import ROOT, environment, eventually

READMES = ("README.md", "README.zh-CN.md")
PAIRS = [READMES] + [
    (f"docs/{page}.md", f"docs/{page}.zh-CN.md")
    for page in ("getting-started", "settings", "no-answer", "figures")
]
OWNER = "https://github.com/OWNER/emqx-gpt.git"
_FENCE = re.compile(r"^( *)```.*?^\1```\n", re.M | re.S)


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


# In step


def tables(text: str) -> list[list[int]]:
    """For each table the number of cells in each row."""
    found = re.findall(r"(?:^\|.*\n?)+", _FENCE.sub("", text), re.M)
    return [[row.replace(r"\|", "").count("|") for row in one.strip().split("\n")] for one in found]


def commands(text: str) -> list[list[str]]:
    """The commands of each block, without what is said: comments, and the texts of questions."""
    return [
        [
            re.sub(r"'[^']*[^\x00-\x7f' ][^']*'|'[A-Z][^']*'|'\{\"text\".*?\}'", "…", line)
            .split(" #")[0]
            .rstrip()
            for line in _lines(block)
        ]
        for block in re.findall(r"```sh\n(.*?)```", text, re.S)
    ]


def _lines(block: str) -> list[str]:
    return [line.strip() for line in block.splitlines() if line.strip() and line.strip()[0] != "#"]


def targets(text: str) -> list[str]:
    """Where links and pictures lead, whatever the language of what is there."""
    found = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", _FENCE.sub("", text))
    return sorted(
        re.sub(r"/(en|zh)(?=/|$)|\.zh-CN|/$", "", link or picture)
        for link, picture in found
        if not (link or picture).startswith("README")
    )


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_languages_are_in_step(english: str, chinese: str) -> None:
    ours, theirs = read(english), read(chinese)
    levels = r"^(#+) "
    bare = [_FENCE.sub("", text) for text in (ours, theirs)]
    assert re.findall(levels, bare[0], re.M) == re.findall(levels, bare[1], re.M)
    assert tables(ours) == tables(theirs)
    assert commands(ours) == commands(theirs)
    assert len(_FENCE.findall(ours)) == len(_FENCE.findall(theirs))
    if english in READMES:
        assert targets(ours) == targets(theirs)


@pytest.mark.parametrize("heading", ["Figures", "实测数据"])
def test_the_figures_are_those_of_the_pages_behind(heading: str) -> None:
    """Each number in the README's table stands in the figures, too."""
    name, page = (
        ("README.md", "docs/figures.md")
        if heading == "Figures"
        else (READMES[1], "docs/figures.zh-CN.md")
    )
    section = read(name).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    behind = read(page) + read("docs/performance.md")
    rows = [row for row in section.split("\n") if "make bench" in row or "make chaos" in row]
    assert len(rows) == 6
    for row in rows:
        for number in re.findall(r"\d[\d,.]*\d", row):
            assert number in behind, row


# Tried


def clone(folder: Path, block: str) -> Path:
    """What the README says, with this repository in the place of the one on the web."""
    first = block.splitlines()[0]
    assert first.startswith(f"git clone {OWNER} && cd ")
    config = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
              "GIT_CONFIG_VALUE_0": OWNER}  # fmt: skip
    line = f"{first} && pwd"
    done = subprocess.run(
        ["sh", "-ec", line], cwd=folder, env=os.environ | config, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = Path(done.stdout.strip())
    venv = made / ".venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(f"{made}\n{sysconfig.get_paths()['purelib']}\n")
    script = venv / "bin" / "emqx-gpt"
    script.write_text(f'#!/bin/sh\nexec {venv}/bin/python -m service "$@"\n')
    script.chmod(0o755)
    for stamp in (".demo", ".test"):
        (venv / stamp).touch()
    return made


class Shell:
    """Types commands in a clone, where mosquitto's clients find the broker by themselves."""

    def __init__(self, folder: Path, port: int, **env: str) -> None:
        self._folder = folder
        clean = environment(**env)
        del clean["PYTHONPATH"]
        clean["PATH"] = f"{folder / '.venv' / 'bin'}:{clean['PATH']}:/usr/sbin"
        clean["XDG_CONFIG_HOME"] = str(folder.parent)
        self._env = clean
        for client in ("pub", "sub", "rr"):
            (folder.parent / f"mosquitto_{client}").write_text(f"-p {port}\n")

    async def run(self, line: str, said: bytes = b"") -> str:
        process = await asyncio.create_subprocess_shell(
            line, cwd=self._folder, env=self._env, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            out, _ = await asyncio.wait_for(process.communicate(said), 60)
        except TimeoutError:
            process.kill()
            raise AssertionError(f"no end: {line}") from None
        assert process.returncode == 0, f"{line}\n{out.decode()}"
        return out.decode()


LOOKED_AT = re.compile(
    r"docker compose up -d --build|awk '/\^\[A-Z_\]\+=\$/|make (?:test|demo|serve)$|git clone "
)
SETTING = re.compile(r"([A-Z_]+)=(\S*)$")


def joined(block: str) -> list[str]:
    """The commands of a block, each in one line."""
    lines = block.replace("\\\n", " ").splitlines()
    return [
        line.split(" #")[0].rstrip() for line in lines if line.strip() and line.strip()[0] != "#"
    ]


async def typed(shell: Shell, line: str, url: str) -> None:
    """Run a command of the README at the demo. Fails where it does not know how."""
    if (found := SETTING.match(line)) is not None:
        value = found[2] or "some-text"
        settings.load({}, **{found[1].lower(): value})
    elif LOOKED_AT.match(line):
        if line.startswith("make"):
            await shell.run(line.replace("make", "make -n"))
    elif line.startswith("mosquitto_rr "):
        assert await shell.run(line)
    elif line.startswith("curl "):
        assert "MQTT" in (said := await shell.run(line.replace("http://127.0.0.1:8000", url))) or (
            "[DONE]" in said
        )
    elif (
        found := re.match(r"(?:\.venv/bin/)?emqx-gpt (?:--env demo\.env )?(.*)", line)
    ) is not None:
        words = found[1]
        if words.endswith(" ID"):
            listed = await shell.run("emqx-gpt --env demo.env requests list")
            words = words.replace(" ID", " " + listed.splitlines()[1].split()[0])
        assert await shell.run(f"emqx-gpt --env demo.env {words}", said=b"y\n")
    else:
        raise AssertionError(f"nobody tries this: {line}")


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[tuple[Shell, str]]:
    """`make demo`, once its play is over."""
    env = environment()
    del env["PYTHONPATH"]
    async with program("make", "demo", cwd=folder, env=env | {"MAKEFLAGS": ""}) as running:
        await running.says("Ctrl-C ends the demo", 100)
        assert "Every answer came." in running.said
        port = int(re.search(r"mqtt://[\d.]+:(\d+)", running.said)[1])  # type: ignore[index]
        known = dotenv_values(folder / "demo.env")
        token, url = known["OPERATOR_TOKEN"], known["PUBLIC_URL"]
        assert token
        assert url
        yield Shell(folder, port, OPERATOR_TOKEN=token), url


@pytest.mark.timeout(300)
@pytest.mark.parametrize("readme", READMES)
async def test_each_command_is_tried(readme: str, tmp_path: Path) -> None:
    found = [block.text for block in blocks(ROOT / readme) if block.kind == "sh"]
    # Those within a list are indented.
    found += re.findall(r"^ +```sh\n(.*?)^ +```", read(readme), re.M | re.S)
    first = next(text for text in found if text.startswith("git clone"))
    folder = clone(tmp_path, first)
    async with demo(folder) as (shell, url):
        lines = [line.strip() for block in found for line in joined(block)]
        assert len(lines) > 25
        for line in lines:
            await typed(shell, line, url)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("readme", READMES)
async def test_three_commands_to_ones_own_emqx(readme: str, tmp_path: Path) -> None:
    """`make env`, `make serve`, `apply`, and a question, at a stand-in and an offline model."""
    found = [block.text for block in blocks(ROOT / readme) if block.kind == "sh"]
    (block,) = [text for text in found if text.startswith("make serve")]
    serve, apply, ask = joined(block)
    folder = clone(tmp_path, next(text for text in found if text.startswith("git clone")))
    model = OfflineModel(names=["gpt-5.4-mini"])
    await model.start()
    try:
        async with StandIn() as broker:
            port = free_port()
            shell = Shell(folder, broker.mqtt_port)
            await shell.run("make env")
            env = folder / ".env"
            values = {"OPENAI_API_KEY": "offline", "OPENAI_BASE_URL": model.base_url,
                      "EMQX_URL": broker.rest_url, "EMQX_API_KEY": "key",
                      "EMQX_API_SECRET": "secret", "PORT": str(port)}  # fmt: skip
            kept = [
                line for line in env.read_text().splitlines() if line.split("=")[0] not in values
            ]
            env.write_text(
                "\n".join([*kept, *(f"{name}={value}" for name, value in values.items())])
            )
            async with program(*serve.split(), cwd=folder, env=shell._env | {"MAKEFLAGS": ""}):
                await eventually(lambda: _up(port))
                assert "emqx_gpt" in await shell.run(f"{apply} --yes")
                said = await shell.run(ask)
                assert said.startswith(("(offline model)", "（离线模型）"))
    finally:
        await model.stop()


async def _up(port: int) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
    except httpx.HTTPError:
        return False
