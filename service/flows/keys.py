"""The declared keys as data, and the values of a flow with the place of each."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Strict
from pydantic.fields import FieldInfo

from service.flows.kinds import Kind, Mark
from service.flows.lines import Path
from service.flows.tables import File


@dataclass(frozen=True, slots=True)
class Key:
    """A declared key. `kind` is None for choices, numbers and tables; a key whose value is a
    table (or `many` of them, by name or in a list) has it as `table`."""

    name: str
    attribute: str
    description: str
    default: Any
    default_from: str
    kind: Kind | None
    table: Any
    many: bool


@cache
def keys_of(table: Any) -> dict[str, Key]:
    """The keys of a table as they are written in TOML."""
    hints = get_type_hints(table, include_extras=True)
    found = {}
    for item in fields(table):
        if "description" not in item.metadata:
            continue  # the table's own name
        parts = list(_parts(hints[item.name]))
        kind = next((part for part in parts if isinstance(part, Kind)), None)
        inner = next((part for part in parts if hasattr(part, "__pydantic_config__")), None)
        if kind is None and inner is None and not _strict(parts):
            raise TypeError(f"{table.__name__}.{item.name}: its type is none of flows.kinds")
        default = None if item.default is MISSING else item.default
        if item.default_factory is not MISSING:
            default = item.default_factory()
        name = item.name.removesuffix("_")  # such as `for`
        found[name] = Key(
            name,
            item.name,
            item.metadata["description"],
            default,
            item.metadata["default_from"],
            kind,
            inner,
            inner is not None and any(part in (dict, tuple) for part in parts),
        )
    return found


def _strict(parts: list[Any]) -> bool:
    """Whether pydantic takes nothing else for it: true is no 1, and "1" is no number."""
    loose = any(part in (bool, int, float, str) for part in parts)
    return not loose or any(isinstance(part, Strict | FieldInfo) for part in parts)


def _parts(hint: Any) -> Iterator[Any]:
    """A type, all types in it, and what is said of them."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from hint.__metadata__
        yield from _parts(hint.__origin__)
        return
    yield hint if origin in (None, Literal, Union, types.UnionType) else origin
    if origin is not Literal:
        for inner in get_args(hint):
            yield from _parts(inner)


def tables_in(table: Any = File) -> set[Any]:
    """All tables that can stand in a table."""
    inner = {found.table for found in keys_of(table).values() if found.table}
    return inner.union(*map(tables_in, inner))


def table_at(path: Path) -> Any:
    """The table that stands at `path`."""
    table: Any = File
    steps = iter(path)
    for step in steps:
        found = keys_of(table).get(str(step))
        if found is None or found.table is None:
            break
        table = found.table
        if found.many:
            next(steps, None)
    return table


@dataclass(frozen=True, slots=True)
class Place:
    """One value of a flow, where it stands, and the table that it is a key of."""

    path: Path
    key: Key
    value: Any
    table: Any

    @property
    def mark(self) -> Mark:
        return self.key.kind.mark if self.key.kind else Mark.PLAIN


def walk(table: Any, path: Path) -> Iterator[Place]:
    """Every value that is set in a table and in the tables within it."""
    kind: Any = type(table)
    for declared in keys_of(kind).values():
        value = getattr(table, declared.attribute)
        if declared.default_from and value is getattr(table, declared.default_from):
            continue
        whole = declared.kind is not None and declared.kind.mark in (Mark.JSON, Mark.SCHEMA)
        for place, item in _items((*path, declared.name), value, whole):
            if declared.table is not None:
                yield from walk(item, place)
            else:
                yield Place(place, declared, item, table)


def _items(path: Path, value: Any, whole: bool) -> Iterator[tuple[Path, Any]]:
    """A value, or each of a list or a table of them."""
    if isinstance(value, tuple):
        yield from (((*path, index), item) for index, item in enumerate(value))
    elif isinstance(value, Mapping) and not whole:
        yield from (((*path, name), item) for name, item in value.items())
    elif value is not None:
        yield path, value
