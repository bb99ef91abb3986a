"""The demo in Chinese: all that a person reads, and nothing left in English."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from service.demo import words
from service.demo.scenes import SCENES
from service.demo.screen import wrapped
from service.demo.words import CHINESE, spoken, words_of
from tests.demo.test_demo import run, too_wide

HERE = Path(words.__file__).parent
CJK = re.compile("[\u4e00-\u9fff]")


def test_everything_that_is_said_is_there_in_chinese() -> None:
    """Also what a variable holds first: each text with CJK beside it is one that is said."""
    said: set[str] = set()
    sources = {path.name: path.read_text("utf-8") for path in HERE.glob("*.py")}
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)) if name != "words.py" else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "say":
                said |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
    for scene in SCENES.values():
        said |= {scene.title, *(line.note for line in scene.lines if line.note)}
    assert said
    assert said - CHINESE.keys() == set()
    literals = {
        node.value
        for source in sources.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
    }
    assert CHINESE.keys() - literals == set()


def test_each_has_the_same_values() -> None:
    for english, chinese in CHINESE.items():
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese)), english


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LC_ALL": "", "LC_MESSAGES": "zh_TW", "LANG": "de_DE"}, "zh"),
    ],
)
def test_the_terminal_says_which(environ: dict[str, str], language: str) -> None:
    assert spoken(environ) == language


def test_no_line_begins_with_what_ends_a_sentence() -> None:
    text = words_of("zh")(
        "offline: fixed rules, no network. It reads English, German and Chinese, calls your tools "
        "and fills your schemas by their names. For a real one set OPENAI_API_KEY, or "
        "OPENAI_BASE_URL for a server that needs no key."
    )
    for width in range(20, 80):
        lines = wrapped(text, width, 0, 0)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert not [line for line in lines if line[0] in "，。、：；！？”）"]


async def test_the_play_is_in_chinese(tmp_path: Path) -> None:
    code, screen = await run(tmp_path, "demo", "--once", LANG="zh_CN.UTF-8", LC_ALL="")
    assert code == 0, screen
    zh = words_of("zh")
    plain = re.sub(r"\s", "", screen)
    for name, scene in SCENES.items():
        assert re.sub(r"\s", "", f"{name}{zh(scene.title)}") in plain
    assert zh("Every answer came.") in screen
    parts = [re.sub(r"\s", "", part) for text in CHINESE for part in re.split(r"{\w+}", text)]
    assert [part for part in parts if len(part) > 12 and part in plain] == []
    replies = re.findall(r"▶ （离线模型）(.{4})", screen)
    assert len(replies) >= 10
    assert all(CJK.search(reply) for reply in replies)
    assert "(offline model)" not in screen
    assert too_wide(screen) == []
    code, screen = await run(tmp_path, "demo", "--once", "--lang", "en", LANG="zh_CN.UTF-8")
    assert code == 0
    assert "Every answer came." in screen
