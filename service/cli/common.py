"""What commands share: a console, one clear line for every error a person can cause."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import typer
import uvloop
from rich.console import Console

from service.errors import ConfigError, EmqxGptError

T = TypeVar("T")


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps machine-read lines."""
    return Console(stderr=stderr, highlight=False)


def say_error(error: EmqxGptError) -> None:
    """The error as lines on standard error: all faults of a ConfigError, else its message."""
    faults = error.faults if isinstance(error, ConfigError) else ()
    for line in [str(fault) for fault in faults if not fault.warning] or [error.message]:
        print(f"emqx-gpt: {line}", file=sys.stderr)


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
