"""Rule SQL and `where` conditions as trees.

Expressions: 'text' (without a quote in it), numbers, true, false; columns and paths
(`payload.temperature`, `pub_props.'Correlation-Data'`, `payload.list[1]`); = != <> < <= > >=;
and, or, not; + - * / div mod; CASE WHEN ... THEN ... ELSE ... END; the calls of `functions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from service.rulesql import functions
from service.rulesql.errors import SqlError
from service.rulesql.lexer import Token, error, tokens
from service.rulesql.rule import Rule
from service.rulesql.syntax import COMPARISONS, Binary, Call, Case, Const, Expr, Field, Path, Unary

_T = TypeVar("_T")
_RESERVED = """
select from where as and or not div mod case when then else end foreach do incase in
"""
_KEYWORDS = frozenset(_RESERVED.split())
_NO_LITERALS = ("null", "undefined")  # what EMQX takes them for is not known
_SUBSET = "outside the subset of EMQX's SQL that is understood here"


def parse(sql: str) -> Rule:
    """A rule's whole SQL. Raises SqlError with its place."""
    return _parsed(sql, _Parser.statement)


def parse_where(condition: str) -> Expr:
    """A condition alone, as `where` in flows.toml. Raises SqlError with its place."""
    return _parsed(condition, _Parser.condition)


def _parsed(sql: str, goal: Callable[[_Parser], _T]) -> _T:
    try:
        return goal(_Parser(sql))
    except RecursionError:
        raise SqlError("nested too deeply") from None


class _Parser:
    """Recursive descent, one method for each level of precedence."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = tokens(sql)
        self.next = 0

    # goals

    def statement(self) -> Rule:
        if self.token.word() == "foreach":
            raise self.unexpected(hint=f"FOREACH is {_SUBSET}")
        self.expect("select")
        fields = [self.field()]
        while self.accept(","):
            fields.append(self.field())
        self.expect("from")
        sources = [self.source()]
        while self.accept(","):
            sources.append(self.source())
        where = self.disjunction() if self.accept("where") else None
        self.end()
        return Rule(self.sql, tuple(fields), tuple(sources), where)

    def condition(self) -> Expr:
        found = self.disjunction()
        self.end()
        return found

    # SELECT and FROM

    def field(self) -> Field:
        if self.accept("*"):
            return Field(None)
        expr = self.disjunction()
        if not self.accept("as"):
            return Field(expr)
        alias = [self.key()]
        while self.accept("."):
            alias.append(self.key())
        return Field(expr, tuple(alias))

    def source(self) -> str:
        if self.token.kind not in ("source", "string"):
            raise self.unexpected(hint='FROM takes topic filters in double quotes, "a/+"')
        return self.take().text[1:-1]

    # expressions, loosest first

    def disjunction(self) -> Expr:
        left = self.conjunction()
        while self.accept("or"):
            left = Binary("or", left, self.conjunction())
        return left

    def conjunction(self) -> Expr:
        left = self.negation()
        while self.accept("and"):
            left = Binary("and", left, self.negation())
        return left

    def negation(self) -> Expr:
        if self.accept("not"):
            return Unary("not", self.negation())
        return self.comparison()

    def comparison(self) -> Expr:
        left = self.sum()
        if self.token.text in COMPARISONS:
            return Binary(self.take().text, left, self.sum())
        if self.token.word() == "in":
            raise self.unexpected(hint=f"IN is {_SUBSET}; write = ... or = ...")
        return left

    def sum(self) -> Expr:
        left = self.product()
        while self.token.text in ("+", "-"):
            left = Binary(self.take().text, left, self.product())
        return left

    def product(self) -> Expr:
        left = self.sign()
        while self.token.text in ("*", "/") or self.token.word() in ("div", "mod"):
            left = Binary(self.take().text.lower(), left, self.sign())
        return left

    def sign(self) -> Expr:
        if self.accept("-"):
            return Unary("-", self.sign())
        if self.accept("+"):
            return self.sign()
        return self.primary()

    def primary(self) -> Expr:
        token = self.token
        if token.kind == "number":
            self.take()
            return Const(float(token.text) if set(token.text) & set(".eE") else int(token.text))
        if token.kind == "string":
            return Const(self.quoted())
        if token.kind == "source":
            raise self.unexpected(hint="a text stands in single quotes")
        if self.accept("("):
            inner = self.disjunction()
            self.expect(")")
            return inner
        if self.accept("case"):
            return self.case()
        if token.word() in ("true", "false"):
            return Const(self.take().word() == "true")
        if token.word() in _NO_LITERALS:
            raise self.unexpected(hint="write is_null(...) or is_not_null(...)")
        if token.kind != "name" or token.word() in _KEYWORDS:
            raise self.unexpected()
        self.take()
        if self.token.text == "(":
            return self.call(token)
        return self.path(token)

    def case(self) -> Expr:
        if self.token.word() != "when":
            raise self.unexpected(hint=f"CASE with a value is {_SUBSET}; write CASE WHEN")
        whens = []
        while self.accept("when"):
            condition = self.disjunction()
            self.expect("then")
            whens.append((condition, self.disjunction()))
        otherwise = self.disjunction() if self.accept("else") else None
        self.expect("end")
        return Case(tuple(whens), otherwise)

    def call(self, name: Token) -> Expr:
        known = functions.FUNCTIONS.get(name.text)
        if known is None:
            message = f"unknown function {name.text}"
            hint = "not one of EMQX's functions understood here: " + ", ".join(functions.FUNCTIONS)
            raise error(self.sql, name.at, message, hint=hint)
        self.expect("(")
        args: list[Expr] = []
        while not self.accept(")"):
            if args:
                self.expect(",")
            args.append(self.disjunction())
        if len(args) != known.arity:
            message = f"{name.text} takes {known.arity} argument(s), not {len(args)}"
            raise error(self.sql, name.at, message)
        return Call(name.text, tuple(args))

    def path(self, name: Token) -> Expr:
        keys: list[str | int] = [name.text]
        while True:
            if self.accept("."):
                keys.append(self.key())
            elif self.accept("["):
                if self.token.kind != "number" or not self.token.text.isdigit():
                    raise self.unexpected(hint="a position in a list, counted from 1")
                keys.append(int(self.take().text))
                self.expect("]")
            else:
                return Path(tuple(keys))

    def key(self) -> str:
        if self.token.kind == "string":
            return self.quoted()
        if self.token.kind != "name":
            raise self.unexpected(hint="a name, or a text in single quotes")
        return self.take().text

    def quoted(self) -> str:
        return self.take().text[1:-1]

    # tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.next]

    def take(self) -> Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def accept(self, what: str) -> bool:
        """Takes a keyword (in lower case) or an operator if it is next."""
        token = self.token
        if (token.word() if token.kind == "name" else token.text) != what or token.kind in (
            "string",
            "source",
        ):
            return False
        self.next += 1
        return True

    def expect(self, what: str) -> None:
        if not self.accept(what):
            raise self.unexpected(hint=f"expected {what.upper()}")

    def end(self) -> None:
        if self.token.kind != "end":
            raise self.unexpected()

    def unexpected(self, *, hint: str = "") -> SqlError:
        token = self.token
        shown = f'"{token.text}"' if token.kind != "end" else "the end"
        message = f"syntax error before {shown}"
        return error(self.sql, token.at, message, hint=hint, emqx=_in_emqx(token))


def _in_emqx(token: Token) -> str:
    """EMQX numbers a syntax error by the length of the name that it stumbled over."""
    if token.kind == "op":
        return f"1: syntax error before: '{token.text}'"
    if token.kind == "name" and token.word() in _KEYWORDS:
        return f"1: syntax error before: '{token.text.upper()}'"
    shown = f'"{token.text}"' if token.kind != "end" else ""
    return f"{len(token.text) if token.kind == 'name' else 1}: syntax error before: {shown}"
