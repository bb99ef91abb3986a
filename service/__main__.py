"""`python -m service` is the command `emqx-gpt`."""

from __future__ import annotations

import sys


def main() -> None:
    """The command; `serve` runs below a small process that looks after it."""
    if "serve" in sys.argv[1:4]:
        from service.supervisor import supervise

        supervise()  # comes back in the child only
    from service.cli import main as command

    command()


if __name__ == "__main__":
    main()
