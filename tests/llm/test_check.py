"""`emqx-gpt check` says what is probably wrong with the address of a model's server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.rig import command, environment

FLOWS = """
[providers.local]
base_url = "{}"

[flows.chat]
request = "in/${{user}}"
reply = "out/${{user}}"
"""


def checked(tmp_path: Path, base_url: str, **settings: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "flows.toml"
    file.write_text(FLOWS.format(base_url))
    return subprocess.run(
        command("check", str(file)),
        env=environment(**settings),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("http://127.0.0.1:11434", "base_url probably lacks /v1: http://127.0.0.1:11434/v1"),
        ("https://x.openai.azure.com/openai/deployments/d", "https://x.openai.azure.com/openai/v1"),
    ],
)
def test_an_address_that_looks_wrong_is_a_warning(
    base_url: str, words: str, tmp_path: Path
) -> None:
    done = checked(tmp_path, base_url)
    assert done.returncode == 0, done.stdout
    assert "warning: [providers.local] base_url: " in done.stdout
    assert words in done.stdout
    done = checked(tmp_path, "http://127.0.0.1:1/v1", OPENAI_BASE_URL="http://127.0.0.1:8080")
    assert "warning: OPENAI_BASE_URL: base_url probably lacks /v1" in done.stdout
    assert "providers.local" not in done.stdout
