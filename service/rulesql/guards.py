"""Which comparisons of payload fields would misfire on a value of another type.

`payload.temperature > 40` is true for `null`, `true` and `{}`, and raises on text, so a message
is answered or lost by accident. `is_num(payload.temperature) and ...` before it is the guard;
after it would be too late, since `and` looks at its left side first.

An equality raises as well, where a number meets a text that is none (`payload.n = 5` on "hot"),
but mostly to no harm: the message would not have been taken. It is different before an `or`: what
stands after it is never looked at. With true, false and null nothing raises. On a payload that is
no JSON each `payload.…` raises, `is_num(payload.…)` too: no guard helps there, only the order.
"""

from __future__ import annotations

from service.rulesql.syntax import (
    ARITHMETIC,
    ORDERED,
    Binary,
    Call,
    Case,
    Const,
    Expr,
    List,
    Path,
    Unary,
    walk,
)

_GUARDS = ("is_num", "is_int", "is_float")
_Paths = frozenset[Path]
_NONE: _Paths = frozenset()


def payload_paths_without_guard(expr: Expr) -> list[str]:
    """Payload paths compared with < <= > >= where nothing makes sure they are numbers."""
    return list(dict.fromkeys(str(path) for path in _unguarded(expr, _NONE)))


def equalities_that_hide(expr: Expr) -> list[tuple[str, str]]:
    """Payload paths whose equality may raise and so hide what stands after an `or`, each with
    the function that would be its guard."""
    return list(dict.fromkeys((str(path), guard) for path, guard in _hiding(expr)))


def _hiding(expr: Expr) -> list[tuple[Path, str]]:
    match expr:
        case Binary("or", left, right):
            hidden = {path for path in walk(right) if isinstance(path, Path)}
            found = [pair for pair in _raising(left, _NONE) if hidden != {pair[0]}]
            return found + _hiding(left) + _hiding(right)
        case Binary("and", left, right):
            return _hiding(left) + _hiding(right)
    return []


def _raising(expr: Expr, known: _Paths) -> list[tuple[Path, str]]:
    """The equalities of a payload path with a literal that nothing guards."""
    match expr:
        case Binary("and", left, right):
            return _raising(left, known) + _raising(right, known | _typed(left))
        case Binary("or", left, right):
            return _raising(left, known) + _raising(right, known)
        case Binary("=" | "!=" | "<>", Path(("payload", _, *_)) as path, Const(value)):
            return _pair(path, value, known)
        case Binary("=" | "!=" | "<>", Const(value), Path(("payload", _, *_)) as path):
            return _pair(path, value, known)
    return []


def _pair(path: Path, value: object, known: _Paths) -> list[tuple[Path, str]]:
    if path in known or isinstance(value, bool) or not isinstance(value, int | float | str):
        return []
    return [(path, "is_str" if isinstance(value, str) else "is_num")]


def _typed(expr: Expr) -> _Paths:
    """The paths whose type is asked for where `expr` holds."""
    match expr:
        case Binary("and", left, right):
            return _typed(left) | _typed(right)
        case Call(name, (Path() as path,)) if name in (*_GUARDS, "is_str"):
            return frozenset({path})
    return _NONE


def _unguarded(expr: Expr, known: _Paths) -> list[Path]:
    match expr:
        case Binary("and", left, right):
            return _unguarded(left, known) + _unguarded(right, known | _numbers(left, True))
        case Binary("or", left, right):
            return _unguarded(left, known) + _unguarded(right, known | _numbers(left, False))
        case Binary(op, left, right) if op in ORDERED:
            return [p for p in _operands(left) + _operands(right) if p not in known]
        case Binary(_, left, right):
            return _unguarded(left, known) + _unguarded(right, known)
        case Unary(_, operand):
            return _unguarded(operand, known)
        case Call(_, args) | List(args):
            return [path for arg in args for path in _unguarded(arg, known)]
        case Case(whens, otherwise):
            found: list[Path] = []
            for condition, value in whens:
                found += _unguarded(condition, known)
                found += _unguarded(value, known | _numbers(condition, True))
                known |= _numbers(condition, False)
            return found + (_unguarded(otherwise, known) if otherwise is not None else [])
    return []


def _operands(expr: Expr) -> list[Path]:
    """The payload paths whose own value is compared, through arithmetic too."""
    match expr:
        case Path(("payload", _, *_)):
            return [expr]
        case Unary("-", operand):
            return _operands(operand)
        case Binary(op, left, right) if op in ARITHMETIC:
            return _operands(left) + _operands(right)
    return []


def _numbers(expr: Expr, truth: bool) -> _Paths:
    """The paths known to be numbers once `expr` turned out to be `truth`."""
    match expr:
        case Call(name, (Path() as path,)) if name in _GUARDS:
            return frozenset({path}) if truth else _NONE
        case Unary("not", operand):
            return _numbers(operand, not truth)
        case Binary("and" | "or", left, right):
            both = _numbers(left, truth), _numbers(right, truth)
            return both[0] | both[1] if (expr.op == "and") == truth else both[0] & both[1]
    return _NONE
