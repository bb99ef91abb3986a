"""`.env`: settings are added to it, never overwritten, and nobody else can read it."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

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
    Of several processes that do so at once, the first one adds. An empty value adds a comment
    that names the setting. `comment` are lines for the end, unless the file has them already.
    Raises ConfigError where the file can't be written.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.fchmod(handle, 0o600)
            had = file.read().decode("utf-8")
            added, text = _filled(had, values)
            if comment and comment not in had:
                text += comment
            if text.startswith(had):
                file.write(text[len(had) :].encode())
            else:
                file.truncate(0)
                file.write(text.encode())
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
            text += f"#{name}=\n"
    return added, text
