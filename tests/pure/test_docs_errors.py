"""docs/error-codes.md lists every code that the service can tell, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "error-codes.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([a-z_]+)` \|(.*)\|$", TEXT, re.MULTILINE)
# What a code is called where it is passed on, and the exception that only carries one.
NAMES = {"code", "error_code", "ours"}
CARRIERS = {"Ignored", "GiveUp"}
# Base classes, whose errors each have a code of their own, and a label of a metric.
NOT_TOLD = {"error", "message", "model_error", "broker_error", "delivered"}
# Rows of codes that are about to come.
COMING: set[str] = set()
CODE = re.compile(r"[a-z]+(_[a-z]+)*")


def sources() -> list[ast.Module]:
    house = ROOT / "service"
    files = [file for file in house.rglob("*.py") if file.relative_to(house).parts[0] != "demo"]
    return [ast.parse(file.read_text("utf-8")) for file in files]


def positions(trees: list[ast.Module]) -> dict[str, set[int]]:
    """Where functions take a code without its name, by the name of the function."""
    found: dict[str, set[int]] = {name: {0} for name in CARRIERS}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [arg.arg for arg in node.args.args]
                taken = [name for name in names if name not in ("self", "cls")]
                for index, name in enumerate(taken):
                    if name in NAMES:
                        found.setdefault(node.name, set()).add(index)
    return found


def codes_in(trees: list[ast.Module]) -> Iterator[str]:
    taken = positions(trees)
    for tree in trees:
        for node in ast.walk(tree):
            values: list[ast.expr | None] = []
            match node:
                case ast.keyword(arg=name, value=value) if name in NAMES:
                    values.append(value)
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in NAMES:
                    values.append(value)
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args):
                    values += [args[at] for at in taken.get(name, ()) if at < len(args)]
            for value in filter(None, values):
                # "a" if … else "b" is two codes; what a call is given is none.
                for part in [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]:
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def test_every_code_is_listed_and_no_other() -> None:
    found = {code for code in codes_in(sources()) if CODE.fullmatch(code)} - NOT_TOLD
    listed = {code for code, _ in ROWS}
    assert found - listed == set()  # add a row
    assert listed - found - COMING == set()  # a stable code must not go away


def test_every_code_is_listed_once_with_all_columns() -> None:
    names = [code for code, _ in ROWS]
    assert len(names) == len(set(names))
    for code, row in ROWS:
        cells = [cell.strip() for cell in row.split(" | ")]
        assert len(cells) == 3, code
        assert all(cells), code


def test_what_is_looked_for_would_be_found() -> None:
    tree = ast.parse(
        'def made(ours, text): ...\ndef told(job, code): ...\nmade("by_place", "t")\n'
        'self.told(job, "in_a_method")\nError("t", code="by_name")\nraise Ignored("carried")\n'
        'code = "one" if x else "other"\nclass A:\n    code = "of_a_class"\n'
    )
    assert set(codes_in([tree])) == {
        *("by_place", "in_a_method", "by_name", "carried", "one", "other", "of_a_class")
    }
