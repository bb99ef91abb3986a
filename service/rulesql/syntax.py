"""The shapes a parsed rule is made of. All frozen: a rule can be shared and compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# What EMQX offers to a rule on a published message.
COLUMNS = (
    *("id", "clientid", "username", "payload", "topic", "qos", "flags", "pub_props", "timestamp"),
    *("publish_received_at", "peerhost", "peername", "node", "event", "client_attrs"),
)


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: object


@dataclass(frozen=True, slots=True)
class Path:
    """A column, or a way into it: keys, and positions counted from 1, or from -1 at the end."""

    keys: tuple[str | int, ...]

    def __str__(self) -> str:
        said = str(self.keys[0])
        for key in self.keys[1:]:
            if isinstance(key, int):
                said += f"[{key}]"
            else:
                said += f".{key}" if key.replace("_", "a").isalnum() else f".'{key}'"
        return said


@dataclass(frozen=True, slots=True)
class List:
    """`[a, 1, 'x']`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments; EMQX looks for it when the rule runs."""

    name: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """`not x`, `-x` or `+x`."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right`: and, or, in, comparisons, arithmetic; `as` gives a name to no purpose."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Case:
    """`CASE WHEN condition THEN value ... ELSE otherwise END`."""

    whens: tuple[tuple[Expr, Expr], ...]
    otherwise: Expr | None


Expr = Const | Path | List | Call | Unary | Binary | Case

ORDERED = ("<", "<=", ">", ">=")
COMPARISONS = ("=", "!=", "<>", "=~", *ORDERED)
ARITHMETIC = ("+", "-", "*", "/", "div", "mod")


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of SELECT; `expr` None is `*`, `alias` None means EMQX names it."""

    expr: Expr | None
    alias: tuple[str, ...] | None = None


def walk(expr: Expr) -> Iterator[Expr]:
    """An expression and all that it is made of."""
    yield expr
    match expr:
        case List(items) | Call(_, items):
            inner: tuple[Expr, ...] = items
        case Unary(_, operand):
            inner = (operand,)
        case Binary(_, left, right):
            inner = (left, right)
        case Case(whens, otherwise):
            inner = tuple(one for pair in whens for one in pair)
            inner += () if otherwise is None else (otherwise,)
        case _:
            inner = ()
    for one in inner:
        yield from walk(one)
