"""A key is declared once: one line in `tables`, and everything knows it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.flows.keys import keys_of
from service.flows.kinds import Flag, key

ROOT = Path(__file__).parents[2]
LINES = """
    notice: Topic | None = key(None, "Where notices go.")
    motto: Words | None = key(None, "Said first.")
    pause: Duration = key(90.0, "How long to pause.")
    most: Size = key(1000, "Longest message.")
    sayings: dict[str, Words] = key(dict, "What is said, by occasion.")
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program with more keys of a flow."""
    copy = tmp_path_factory.mktemp("house")
    ignore = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in ("service", "docs", "tests/pure"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    tables = copy / "service" / "flows" / "tables.py"
    text = tables.read_text("utf-8")
    head, after, rest = text.partition("class FlowKeys:")
    config, line, keys = rest.partition("__pydantic_config__ = _FORBID\n")
    head = head.replace("    Rate,\n", "    Rate,\n    Size,\n")
    tables.write_text(head + after + config + line + LINES + keys, "utf-8")
    return copy


def run(house: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *command], cwd=house, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


SHOW = """
import json
from service.flows import parse, read
from service.flows.schema import json_schema
faults = parse(read("flows.toml"))[1]
print(json.dumps([[str(fault) for fault in faults], json_schema()]))
"""
FAULTS = [  # IN is the flow's own request topic
    ('motto = "${nonsense}"', "motto: ${nonsense} stands for nothing"),
    ('notice = "n/${nonsense}"', "notice: ${nonsense} stands for nothing"),
    ('notice = "n/+"', "contains a wildcard"),
    ('notice = "IN/x"', "can reach its own request topic"),
    ('notice = "emqx-gpt/reply"', "can reach the internal topic"),
    ("pause = 5", 'write "5s"'),
    ('most = "8 TB"', "write for example 8 MB"),
    ('sayings = { late = "${nonsense}" }', "sayings.late: ${nonsense} stands for nothing"),
    ('notise = "n"', 'did you mean "notice"?'),
]
FINE = (
    *('notice = "n/${user}"', 'motto = "Hello ${user}"', 'pause = "2m"', 'most = "8 kB"'),
    'sayings = { late = "Sorry ${user}" }',
)


def test_the_checks_and_the_schema_know_it(house: Path) -> None:
    lines = []
    for number, line in enumerate([line for line, _ in FAULTS] + ["\n".join(FINE)]):
        lines += [f"[flows.x{number}]", f'request = "in/{number}/${{user}}"', 'reply = "out"']
        lines.append(line.replace("IN", f"in/{number}"))
    (house / "flows.toml").write_text("\n".join(lines), "utf-8")
    code, said = run(house, "-c", SHOW)
    assert code == 0, said
    told, schema = json.loads(said)
    assert len(told) == len(FAULTS), told
    for number, (_, words) in enumerate(FAULTS):
        assert told[number].startswith(f"flows.toml:{4 + 4 * number}: flows.x{number}.")
        assert words in told[number]
    keys = schema["$defs"]["FlowKeys"]["properties"]
    assert keys["notice"]["description"] == "Where notices go."
    assert keys["pause"]["default"] == "90s"


def test_the_docs_test_asks_for_its_row_and_an_example(house: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", house)
    code, said = run(
        house, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/pure/test_docs_flows.py"
    )
    assert code == 1
    for failed in (
        "is_explained_and_no_other",
        "in_an_example[FlowKeys]",
        "told_as_they_are[pause]",
    ):
        assert (
            f"FAILED tests/pure/test_docs_flows.py::test_{'every_key_' * (failed[0] == 'i')}"
            in said
        )
        assert failed in said


def test_a_type_that_takes_too_much_is_refused() -> None:
    from dataclasses import dataclass

    @dataclass
    class Loose:
        switch: bool = key(False, "On or off.")

    @dataclass
    class Strictly:
        switch: Flag = key(False, "On or off.")

    with pytest.raises(TypeError, match=r"Loose\.switch"):
        keys_of(Loose)
    assert list(keys_of(Strictly)) == ["switch"]
