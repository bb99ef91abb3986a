"""What somebody meets who has just come: `make` without an environment, and the wheel alone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.rig import ROOT, environment


def make(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *words], cwd=ROOT, env=environ | env, capture_output=True, text=True
    )


def python_without(module: str, folder: Path) -> Path:
    """A Python that fails where this module is imported on the command line, as Debian's does."""
    path = folder / "python"
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *{module}*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    path.chmod(0o755)
    return path


def test_a_missing_venv_is_told_before_it_fails(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    python = python_without("ensurepip", tmp_path)
    done = make(f"VENV={venv}", f"PYTHON={python}", f"{venv}/bin/pip")
    assert done.returncode != 0
    assert "sudo apt install python3-venv" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not venv.exists()


@pytest.mark.parametrize("left", ["no pip", "no python"])
def test_a_half_made_environment_is_mended(left: str, tmp_path: Path) -> None:
    """What an interruption leaves, and an update of the system's Python."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    if left == "no pip":
        (venv / "bin" / "python").symlink_to(sys.executable)
    else:
        (venv / "bin" / "python").symlink_to(tmp_path / "gone")
        (venv / "bin" / "pip").write_text("#!/bin/sh\nexit 1\n")
        (venv / ".demo").touch()
    # No newer pip is looked for: none is needed here, and no registry has to be asked.
    done = make(f"VENV={venv}", f"PYTHON={sys.executable}", f"{venv}/bin/pip", PIP_NO_INDEX="1")
    assert done.returncode == 0, done.stdout + done.stderr
    said = subprocess.run([venv / "bin" / "pip", "--version"], capture_output=True, text=True)
    assert str(venv) in said.stdout
    assert not (venv / ".demo").exists()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder)]
    done = subprocess.run([*command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "***" not in said, "setuptools has something to say"
    assert "Warning" not in said
    (found,) = folder.glob("*.whl")
    return found


def test_the_flows_of_the_project_are_in_the_wheel(wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel).read("service/demo/flows.toml")
    assert packed == (ROOT / "flows.toml").read_bytes()


def test_the_wheel_brings_a_demo_that_needs_no_checkout(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, where only what the project depends on is this one's."""
    venv, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [venv / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    env = environment()
    del env["PYTHONPATH"]
    command = [venv / "bin" / "emqx-gpt", "demo", "--once"]
    done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no flows.toml here, so those that come along: chat, alarm" in " ".join(
        done.stdout.split()
    )
    assert "Every answer came." in done.stdout
    assert list(empty.iterdir()) == []  # nothing is left behind
    where = [venv / "bin" / "python", "-c", "import service; print(service.__file__)"]
    said = subprocess.run(where, cwd=empty, env=env, capture_output=True, text=True)
    assert said.stdout.startswith(str(venv))
