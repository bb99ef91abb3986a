"""Statements of SQLAlchemy Core, compiled once and run by sqlite3 itself.

Core builds them; run through it, each costs two to eight times what SQLite does for it
(docs/performance.md). Values are what sqlite3 takes as they are, and so is what comes back,
but for booleans.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Boolean
from sqlalchemy.dialects import sqlite

_dialect = sqlite.dialect(paramstyle="named")


class Rows:
    """What a statement gave, in those words of SQLAlchemy's results that the store uses."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def scalars(self) -> Rows:
        return Rows([row[0] for row in self._rows], self.rowcount)

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def one(self) -> Any:
        (row,) = self._rows
        return row

    def one_or_none(self) -> Any:
        return self.one() if self._rows else None


class _Prepared:
    """One statement: its text, the values it has itself, and how its rows are named."""

    def __init__(self, statement: Any, names: Sequence[str]) -> None:
        compiled = statement.compile(dialect=_dialect, column_keys=list(names))
        if compiled.post_compile_params:
            raise TypeError(f"its text depends on its values: {compiled}")
        self.text = str(compiled)
        self.constants = {
            name: value for name, value in compiled.params.items() if name not in names
        }
        self.row = _maker(list(statement.exported_columns))

    def values(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**self.constants, **given} if self.constants else given


def _maker(columns: Sequence[Any]) -> Callable[[Any], Any] | None:
    """Makes a named row of a plain one; None where a statement gives none."""
    if not columns:
        return None
    row = namedtuple("row", [column.key for column in columns], rename=True)  # type: ignore[misc]
    flags = [at for at, column in enumerate(columns) if isinstance(column.type, Boolean)]
    if not flags:
        return row._make

    def make(found: Sequence[Any]) -> Any:
        fields = list(found)
        for at in flags:
            if fields[at] is not None:
                fields[at] = bool(fields[at])
        return row._make(fields)

    return make


_known: dict[Any, _Prepared] = {}
"""By statement; each of ours is made once and kept (`functools.cache`)."""


class Prepared:
    """A `Link` to SQLite, whose transactions its owner begins and ends."""

    pg = False

    def __init__(self, driver: sqlite3.Connection) -> None:
        self.driver = driver

    def run(self, statement: Any, values: Any = None) -> Rows:
        """Raises sqlite3.Error. A list of values gives no rows."""
        several = isinstance(values, list)
        first = (values[0] if several else values) or {}
        prepared = _known.get(statement)
        if prepared is None:
            prepared = _known[statement] = _Prepared(statement, tuple(first))
        if several:
            bound = [prepared.values(one) for one in values] if prepared.constants else values
            return Rows([], self.driver.executemany(prepared.text, bound).rowcount)
        cursor = self.driver.execute(prepared.text, prepared.values(first))
        if prepared.row is None:
            return Rows([], cursor.rowcount)
        return Rows([prepared.row(row) for row in cursor], cursor.rowcount)
