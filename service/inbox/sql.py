"""What the two dialects say differently, and the transaction that the statements run in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    FromClause,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from service.domain import State
from service.inbox.rows import Change

Pair = tuple[str, str]
"""Two keys; mostly of a flow and a conversation."""


class SqlConnection(Protocol):
    """A connection in a transaction: SQLAlchemy's, or what stands for it on SQLite."""

    @property
    def dialect(self) -> Dialect: ...

    def execute(self, statement: Any, values: Any = None, /) -> Any: ...


class Tx:
    """One transaction, and what is to be told once it is committed."""

    def __init__(self, connection: SqlConnection, now: int) -> None:
        self._connection = connection
        self.pg = connection.dialect.name == "postgresql"
        self.now = now
        self.changes: list[Change] = []
        self.wake = False  # there may be something to claim
        self.opened = 0  # requests that came, less those that ended

    def run(self, statement: Any, values: Any = None) -> Any:
        """The rows of a statement, with one set of values or a list of sets."""
        return self._connection.execute(statement, values)

    def tell(self, id: str, flow: str | None, conversation: str, state: State) -> None:
        self.changes.append(Change(id, flow or None, conversation, state))


def insert(pg: bool, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Both know ON CONFLICT, each in its own class."""
    return postgresql.insert(table) if pg else sqlite.insert(table)


def among(pg: bool, column: Column[Any], name: str) -> ColumnElement[bool]:
    """`column` is one of the numbers bound as `name`, however many: one statement text.

    So drivers prepare it once, where IN (?, ?, …) would be another text for each length.
    """
    if pg:
        return column == any_(bindparam(name, type_=postgresql.ARRAY(BigInteger)))
    listed = func.json_each(bindparam(name, type_=Text)).table_valued("value")
    return column.in_(select(listed.c.value))


def once(found: Select[Any]) -> Select[Any]:
    """The rows of a query with LIMIT and FOR UPDATE, for IN: PostgreSQL may run such a subquery
    again for each row, and then finds other ones; what stands in WITH it runs once."""
    return select(found.cte("found", nesting=True))


def numbers(pg: bool, values: Iterable[int]) -> Any:
    """The value for `among`."""
    listed = list(values)
    return listed if pg else orjson.dumps(listed).decode()


def pair_is(table: Table) -> ColumnElement[bool]:
    return (table.c.flow == bindparam("b_flow")) & (
        table.c.conversation == bindparam("b_conversation")
    )


def among_pairs(pg: bool, first: Column[Any], second: Column[Any]) -> ColumnElement[bool]:
    """(first, second) is one of the pairs bound by `pairs`."""
    wanted: Any
    if pg:
        array = postgresql.ARRAY(Text)
        listed = (
            func.unnest(bindparam("firsts", type_=array), bindparam("seconds", type_=array))
            .table_valued("first", "second", name="wanted")
            .render_derived()
        )
        wanted = select(listed.c.first, listed.c.second)
    else:
        listed = func.json_each(bindparam("pairs", type_=Text)).table_valued("value")
        wanted = select(
            func.json_extract(listed.c.value, "$[0]"), func.json_extract(listed.c.value, "$[1]")
        )
    return tuple_(first, second).in_(wanted)


def pairs(pg: bool, values: Sequence[Pair]) -> dict[str, Any]:
    if pg:
        return {"firsts": [v[0] for v in values], "seconds": [v[1] for v in values]}
    return {"pairs": orjson.dumps(values).decode()}


def listed_texts(pg: bool, name: str) -> FromClause:
    """A table with one column `value`: the texts bound as `name`."""
    if pg:
        bound = bindparam(name, type_=postgresql.ARRAY(Text))
        return func.unnest(bound).table_valued("value", name="listed").render_derived()
    return func.json_each(bindparam(name, type_=Text)).table_valued("value", name="listed")


def texts(pg: bool, values: Sequence[str]) -> Any:
    return list(values) if pg else orjson.dumps(values).decode()


def listed_rows(pg: bool, columns: Mapping[str, TypeEngine[Any]]) -> FromClause:
    """A table `listed` of the rows bound by `rows`, however many: one statement does for all of
    them what would else take one each, and Python's lock for each."""
    if pg:
        arrays = (bindparam(f"b_{n}", type_=postgresql.ARRAY(t)) for n, t in columns.items())
        names = (column(n, t) for n, t in columns.items())
        return func.unnest(*arrays).table_valued(*names, name="listed").render_derived()
    value = func.json_each(bindparam("b_rows", type_=Text)).table_valued("value").c.value
    fields = (
        cast(func.json_extract(value, f"$[{at}]"), t).label(n)
        for at, (n, t) in enumerate(columns.items())
    )
    return select(*fields).subquery("listed")


def rows(pg: bool, columns: Iterable[str], values: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The values for `listed_rows`; on SQLite all bytes among them are ASCII or UTF-8."""
    if pg:
        return {f"b_{n}": [row[at] for row in values] for at, n in enumerate(columns)}
    return {"b_rows": orjson.dumps(values, default=bytes.decode).decode()}
