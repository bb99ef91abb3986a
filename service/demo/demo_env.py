"""`demo.env`: with it, the other commands work against the running demo."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

NAME = "demo.env"
_HEAD = """\
# The running demo, for emqx-gpt's other commands; gone when the demo ends.
#   emqx-gpt --env {name} requests list
"""


@contextlib.contextmanager
def env_file(values: Mapping[str, str], folder: Path) -> Iterator[Path]:
    """The file, readable by its owner only, while entered.

    In `folder`; in a temporary one where that can't be written to. A file of another demo that
    still runs is left alone.
    """
    name = NAME if not _in_use(folder / NAME) else f"demo-{values['PORT']}.env"
    text = _HEAD.format(name=name) + "".join(f"{key}={_quoted(values[key])}\n" for key in values)
    path, scratch = folder / name, None
    try:
        _write(path, text)
    except OSError:
        scratch = tempfile.TemporaryDirectory(prefix="emqx-gpt-")
        path = Path(scratch.name) / name
        _write(path, text)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            if path.read_text("utf-8") == text:  # not another demo's by now
                path.unlink()
        if scratch is not None:
            scratch.cleanup()


def _write(path: Path, text: str) -> None:
    """Write in one go, never readable by others."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def _quoted(value: str) -> str:
    """A value that both a shell and python-dotenv read as it is: no path of ours has a quote."""
    return f"'{value}'" if value and not value.isalnum() else value


def _in_use(path: Path) -> bool:
    """Whether the demo that wrote this file still listens."""
    try:
        lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        port = int(lines["PORT"].strip("'"))
    except (OSError, ValueError, KeyError):
        return False
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
