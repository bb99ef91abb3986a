"""`emqx-gpt serve` whose flows can be held up by a message: one that says "hang" keeps the
interpreter to itself, as a C extension can. It is ended after 3 s rather than 15."""

from __future__ import annotations

import re
from typing import Any

from service import supervisor
from service.answering import prompt

NEVER = re.compile("(a+)+$")  # Python's own engine never lets go of the interpreter


def main() -> None:
    supervisor.BOUND = 3
    supervisor.supervise()
    understand = prompt.understand

    def holding(flow: Any, message: Any, *more: Any, **named: Any) -> prompt.Asked:
        if message.payload == b"hang":
            NEVER.match("a" * 60 + "b")
        return understand(flow, message, *more, **named)

    prompt.understand = holding

    from service.cli import main as command

    command()


if __name__ == "__main__":
    main()
