"""The command `emqx-gpt`."""

from service.cli.main import main

__all__ = ["main"]
