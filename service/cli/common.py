"""What commands share: a console, one clear line for every error a person can cause."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import typer
import uvloop
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from service import safe_text
from service.errors import ConfigError, EmqxGptError

T = TypeVar("T")
_COMMAND = re.compile(r"\bemqx-gpt(?= (?:ask|check|emqx|requests|serve)\b)")
HELP = {"help_option_names": ["-h", "--help"]}


class _Shown:
    """Something to print, without what the words in it could do to the terminal."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            if segment.control is None:
                segment = Segment(safe_text.shown(segment.text), segment.style)
            yield segment


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(one) for one in renderables]


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps machine-read lines, and shows whatever it is given."""
    made = Console(stderr=stderr, highlight=False)
    made.push_render_hook(_Hook())
    return made


def say(text: str, *, err: bool = False) -> None:
    """Print words that may hold some of a stranger."""
    typer.echo(safe_text.shown(text), err=err)


def say_json(value: Any, *, indent: int | None = None) -> None:
    """Print JSON as people read it: any script, but nothing that a terminal obeys."""
    typer.echo(safe_text.json_lines(json.dumps(value, indent=indent, ensure_ascii=False)))


def as_typed(text: str) -> str:
    """The text, with our commands in it as they are called here: where the program lies when no
    PATH has it, and with the settings of `--env`."""
    program, *typed = sys.argv
    folder, called = os.path.split(program)
    found = shutil.which("emqx-gpt")
    if called != "emqx-gpt" or (found and os.path.realpath(found) == os.path.realpath(program)):
        folder = ""
    if typed[:1] == ["--env"]:
        options = typed[:2]
    else:
        options = [one for one in typed[:1] if one.startswith("--env=")]
    as_called = shlex.join([os.path.join(folder, "emqx-gpt"), *options])
    return _COMMAND.sub(lambda _: as_called, text)


def say_error(error: EmqxGptError) -> None:
    """The error as lines on standard error: all faults of a ConfigError, else its message."""
    faults = error.faults if isinstance(error, ConfigError) else ()
    for line in [str(fault) for fault in faults if not fault.warning] or [error.message]:
        print(f"emqx-gpt: {safe_text.line(as_typed(line))}", file=sys.stderr)


@contextlib.contextmanager
def fail_clearly() -> Iterator[None]:
    """Turn our errors into their line and exit code 1."""
    try:
        yield
    except EmqxGptError as error:
        say_error(error)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # The reader (head, less) went away; Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop, errors in one clear line."""
    with fail_clearly(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
