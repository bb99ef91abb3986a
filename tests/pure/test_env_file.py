"""`.env`: added to, never overwritten, for its owner's eyes."""

import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from dotenv import dotenv_values

from service.cli.env_file import TOKENS, add_settings, add_tokens
from service.errors import ConfigError
from service.settings import OWN


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    """A limit on the size of files stands in for the disk."""
    env = tmp_path / ".env"
    env.write_text("MINE=" + "x" * 5000 + "\nWEBHOOK_TOKEN=\n")
    before = env.read_text()
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        "from service.cli.env_file import add_tokens; add_tokens(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, env], capture_output=True, text=True)
    assert "can't be written" in done.stderr
    assert env.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_tokens_are_made_once_and_are_for_the_owner_only(tmp_path):
    path = tmp_path / ".env"
    assert add_tokens(path) == list(TOKENS)
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(re.fullmatch(OWN + r"[\w-]{28}", dotenv_values(path)[name]) for name in TOKENS)
    assert add_tokens(path) == []
    assert path.read_text() == first


def test_what_is_there_stays_and_what_is_empty_is_set(tmp_path):
    path = tmp_path / ".env"
    path.write_text("# mine\nexport OPERATOR_TOKEN=mine\nWEBHOOK_TOKEN=\nLAST=1")
    path.chmod(0o644)
    assert add_tokens(path) == ["WEBHOOK_TOKEN"]
    lines = path.read_text().splitlines()
    assert lines[:2] == ["# mine", "export OPERATOR_TOKEN=mine"]
    assert (lines[2].partition("=")[0], lines[3:]) == ("WEBHOOK_TOKEN", ["LAST=1"])
    found = dotenv_values(path)
    assert (found["OPERATOR_TOKEN"], found["LAST"]) == ("mine", "1")
    assert found["WEBHOOK_TOKEN"].startswith(OWN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_of_several_at_once_one_makes_them(tmp_path):
    path = tmp_path / ".env"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: add_tokens(path), range(16)))
    assert sorted(map(len, made)) == [0] * 15 + [2]
    assert path.read_text().count("WEBHOOK_TOKEN=") == 1


@pytest.mark.parametrize("text", ['WEBHOOK_TOKEN=""\n', "WEBHOOK_TOKEN=a\nWEBHOOK_TOKEN=\n"])
def test_an_empty_last_word_is_none(tmp_path, text):
    path = tmp_path / ".env"
    path.write_text(text)
    assert add_tokens(path, ["WEBHOOK_TOKEN"]) == ["WEBHOOK_TOKEN"]
    assert str(dotenv_values(path)["WEBHOOK_TOKEN"]).startswith(OWN)


def test_where_it_can_not_be_written_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="set these in the environment: A"):
        add_settings(tmp_path / "none" / ".env", {"A": "b"})
    (tmp_path / ".env").write_bytes(b"\xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        add_settings(tmp_path / ".env", {"A": "b"})
