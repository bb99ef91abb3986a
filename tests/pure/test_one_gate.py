"""There is one way from a model's call to a tool's topic: `answering/tool_gate.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import service

HOUSE = Path(service.__file__).parent
PUBLISHES = {"publish", "publish_bulk"}  # of emqx.publish_api: nothing else speaks to the broker
# The doctor's test message goes to a request topic, which no tool can have.
OWNS = {"answering/publisher.py", "emqx/loop.py"}
COMMANDS = {"answering/tool_gate.py"}  # who may call `send`


def calls(name: str) -> Iterator[tuple[str, int]]:
    """Every `….name(…)` in the house, but in demos and stand-ins, which play devices."""
    for path in sorted(HOUSE.rglob("*.py")):
        place = path.relative_to(HOUSE).as_posix()
        if place.startswith("demo/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr == name:
                yield place, called.lineno


def test_only_the_publisher_speaks_to_the_brokers_publish_api() -> None:
    found = {place for name in PUBLISHES for place, _ in calls(name)}
    assert found == OWNS


def test_only_the_gate_sends_commands() -> None:
    senders = {
        place
        for place, line in calls("send")
        if "sender" in (HOUSE / place).read_text().splitlines()[line - 1]
        or "publisher" in (HOUSE / place).read_text().splitlines()[line - 1]
    }
    assert senders == COMMANDS


def test_everything_else_the_publisher_checks() -> None:
    """Its other ways out ask whether a topic is a tool's; tests/e2e/test_waiting.py sees it."""
    tree = ast.parse((HOUSE / "answering/publisher.py").read_text())
    [publisher] = [
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Publisher"
    ]
    public = {
        node.name: ast.unparse(node)
        for node in publisher.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    }
    out = {name for name, text in public.items() if "_Item(" in text or "_emqx.publish" in text}
    assert out == {"deliver", "post", "send"}
    assert "_is_command" in public["deliver"]
    assert "_is_command" in public["post"]
