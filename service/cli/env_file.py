"""`.env`: settings are added to it, never overwritten, and nobody else can read it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from service.errors import ConfigError, Fault
from service.settings import OWN

ENV = Path(".env")
TOKENS = ("WEBHOOK_TOKEN", "OPERATOR_TOKEN")


def new_token() -> str:
    """A token of our own making, as `Settings` knows it again."""
    return OWN + secrets.token_urlsafe(21)


def add_tokens(path: Path = ENV, names: Iterable[str] = TOKENS) -> list[str]:
    """Make each of these tokens that the file does not set yet. Returns the names added.

    Raises ConfigError where the file can't be written.
    """
    return add_settings(path, {name: new_token() for name in names})


def add_settings(path: Path, values: Mapping[str, str], *, comment: str = "") -> list[str]:
    """Append what the file does not set yet, or fill in its empty line; 0600.

    Returns the names added.
    Of several processes that do so at once, the first one adds. An empty value adds its
    empty line, to be filled in. `comment` are lines for the end, unless the file has them already.
    Raises ConfigError where the file can't be written.
    """
    try:
        with _alone(path) as file:
            had = file.read().decode("utf-8")
            added, text = _filled(had, values)
            if comment and comment not in had:
                text += comment
            if text != had:
                _replace(path, text.encode())
    except UnicodeDecodeError:
        fault = Fault(str(path), "is not UTF-8 text", hint="save it as UTF-8")
        raise ConfigError(str(fault), (fault,)) from None
    except OSError as error:
        hint = "run it in a folder of your own, or set these in the environment: "
        fault = Fault(
            str(path), f"can't be written: {error.strerror}", hint=hint + ", ".join(values)
        )
        raise ConfigError(str(fault), (fault,)) from None
    return added


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """The file, made if there is none, while no other process changes it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(handle, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(handle), os.stat(path)):
                continue  # another one replaced it meanwhile
            os.fchmod(handle, 0o600)
            yield file
            return


def _replace(path: Path, content: bytes) -> None:
    """All of it or nothing, also on a full disk or after a power cut."""
    real = Path(os.path.realpath(path))
    partial = real.with_name(f"{real.name}.{os.getpid()}.new")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        partial.replace(real)
    finally:
        partial.unlink(missing_ok=True)


def _filled(text: str, values: Mapping[str, str]) -> tuple[list[str], str]:
    """The names of `values` that a file with this text does not set, and the text that does."""
    added = []
    text += "\n" if text and not text.endswith("\n") else ""
    for name, value in values.items():
        setting = rf"^[ \t]*(?:export[ \t]+)?{name}[ \t]*=(.*)$"
        found = [*re.finditer(setting, text, re.MULTILINE)]
        if found and found[-1][1].strip().strip("'\""):  # the last one counts; empty is unset
            continue
        if value:
            line = f"{name}={value}"
            last = found[-1] if found else None
            text = (
                f"{text[: last.start()]}{line}{text[last.end() :]}" if last else f"{text}{line}\n"
            )
            added.append(name)
        elif not found and not re.search(rf"^#\s*{name}=", text, re.MULTILINE):
            text += f"{name}=\n"
    return added, text
