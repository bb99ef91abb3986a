"""Rule SQL and `where` conditions as trees, by the grammar of EMQX's own parser.

A condition joins predicates by and, or, not; a predicate is a value, a comparison of two
values, or `x in (…)`. A value is 'text', a number, true, false, a column or path
(`payload.temperature`, `pub_props.'Correlation-Data'`, `payload.list[1]`), a list, arithmetic
(+ - * / div mod) or a call. CASE stands in SELECT and among arguments, never in a condition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from service.rulesql.lexer import Token, error, tokens
from service.rulesql.rule import Rule
from service.rulesql.rule_errors import SqlError
from service.rulesql.syntax import (
    COMPARISONS,
    Binary,
    Call,
    Case,
    Const,
    Expr,
    Field,
    List,
    Path,
    Unary,
)

_T = TypeVar("_T")
_NO_CASE = "EMQX knows CASE in SELECT and among arguments only; write and, or, not"
_SUBSET = "outside the subset of EMQX's SQL that is understood here"


def parse(sql: str) -> Rule:
    """A rule's whole SQL. Raises SqlError with its place."""
    if not sql:
        raise SqlError("syntax error before the end", emqx="invalid_string")
    return _parsed(sql, _Parser.statement)


def parse_where(condition: str) -> Expr:
    """A condition alone, as `where` in flows.toml. Raises SqlError with its place."""
    # It is rendered in parentheses, so a line break can follow a comment.
    return _parsed(condition + "\n", _Parser.whole_condition)


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
        if self.token.keyword() == "foreach":
            raise self.unexpected(hint=f"FOREACH is {_SUBSET}")
        self.expect("select")
        fields = self.several(self.field)
        self.expect("from")
        sources = self.several(self.source)
        where = self.condition() if self.accept("where") else None
        self.end()
        return Rule(self.sql, tuple(fields), tuple(sources), where)

    def whole_condition(self) -> Expr:
        found = self.condition()
        self.end()
        return found

    # SELECT and FROM

    def field(self) -> Field:
        if self.accept("*"):
            return Field(None)
        expr = self.case_or(self.comparison)
        named = self.accept("as")
        if named or self.names():
            return Field(expr, self.alias())
        return Field(expr)

    def alias(self) -> tuple[str, ...]:
        found = self.path(self.name())
        return tuple(str(key) for key in found.keys)

    def source(self) -> str:
        if self.token.kind not in ("quoted", "string", "name"):
            raise self.unexpected(hint='FROM takes topic filters in double quotes, "a/+"')
        return _unquoted(self.take().text)

    # conditions

    def condition(self) -> Expr:
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
        return self.predicate()

    def predicate(self) -> Expr:
        left = self.sum(self.condition)
        if self.token.kind == "comparison":
            return self.compared(left)
        negated = self.token.keyword() == "not" and self.tokens[self.next + 1].keyword() == "in"
        if negated:
            self.take()
        if self.accept("in"):
            self.expect("(")
            inside = Binary("in", left, List(tuple(self.several(self.comparison))))
            self.expect(")")
            return Unary("not", inside) if negated else inside
        if self.accept("as") or self.names():
            self.alias()
            return Binary("as", left, Const(None))
        return left

    def comparison(self) -> Expr:
        """A value, or two compared."""
        left = self.sum(self.comparison)
        return self.compared(left) if self.token.kind == "comparison" else left

    def compared(self, left: Expr) -> Expr:
        op = self.take()
        if op.text not in COMPARISONS:
            raise error(self.sql, op.at, f"{op.text} is {_SUBSET}")
        return Binary(op.text, left, self.sum(self.comparison))

    # values, loosest first; `inside` is what parentheses may hold

    def sum(self, inside: Callable[[], Expr]) -> Expr:
        left = self.product(inside)
        while self.token.kind == "op" and self.token.text in ("+", "-"):
            left = Binary(self.take().text, left, self.product(inside))
        return left

    def product(self, inside: Callable[[], Expr]) -> Expr:
        left = self.sign(inside)
        while self.token.text in ("*", "/") or self.token.keyword() in ("div", "mod"):
            left = Binary(self.take().text, left, self.sign(inside))
        return left

    def sign(self, inside: Callable[[], Expr]) -> Expr:
        for op in ("-", "+"):
            if self.accept(op):
                return Unary(op, self.sign(inside))
        return self.primary(inside)

    def primary(self, inside: Callable[[], Expr]) -> Expr:
        token = self.token
        if token.kind == "integer":
            return Const(int(self.take().text))
        if token.kind == "float":
            return Const(float(self.take().text))
        if token.kind == "string":
            return Const(_unquoted(self.take().text))
        if self.accept("("):
            found = inside()
            self.expect(")")
            return found
        if self.accept("["):
            items = [] if self.token.text == "]" else self.several(self.element)
            self.expect("]")
            return List(tuple(items))
        if token.kind not in ("name", "quoted"):
            raise self.unexpected(hint=_NO_CASE if token.keyword() == "case" else "")
        self.take()
        if self.token.text == "(":
            return self.call(token)
        found = self.path(token)
        return Const(found.keys[0] == "true") if found.keys in (("true",), ("false",)) else found

    def element(self) -> Expr:
        return self.sum(self.comparison)

    def case_or(self, otherwise: Callable[[], Expr]) -> Expr:
        if self.token.keyword() == "case":
            return self.case()
        if self.token.text == "(" and self.tokens[self.next + 1].keyword() == "case":
            self.take()
            found = self.case()
            self.expect(")")
            return found
        return otherwise()

    def case(self) -> Expr:
        self.expect("case")
        if self.token.keyword() != "when":
            raise self.unexpected(hint=f"CASE with a value is {_SUBSET}; write CASE WHEN")
        whens = []
        while self.accept("when"):
            condition = self.condition()
            self.expect("then")
            whens.append((condition, self.comparison()))
        otherwise = self.comparison() if self.accept("else") else None
        self.expect("end")
        return Case(tuple(whens), otherwise)

    def call(self, name: Token) -> Expr:
        self.expect("(")
        args: list[Expr] = []
        if self.token.text != ")":
            args = self.several(lambda: self.case_or(self.comparison))
        self.expect(")")
        return Call(name.text, tuple(args))

    def path(self, name: Token) -> Path:
        keys: list[str | int] = [_unquoted(name.text)]
        while True:
            if self.accept("."):
                keys.append(self.key())
            elif self.token.text == "[" and self.token.kind == "op":
                self.take()
                negative = self.accept("-")
                if self.token.kind != "integer":
                    raise self.unexpected(hint="a position in a list, counted from 1")
                keys.append(int(self.take().text) * (-1 if negative else 1))
                self.expect("]")
            else:
                return Path(tuple(keys))

    def key(self) -> str:
        if self.token.kind not in ("name", "quoted", "string", "integer"):
            hint = "a name, or a text in single quotes"
            if self.token.kind == "keyword":
                hint = f"a word of SQL; write '{self.token.text}' in single quotes"
            raise self.unexpected(hint=hint)
        return _unquoted(self.take().text)

    # tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.next]

    def names(self) -> bool:
        """Whether a name follows where EMQX takes one without AS."""
        return self.token.kind in ("name", "quoted") and not self.token.keyword()

    def name(self) -> Token:
        if self.token.kind not in ("name", "quoted"):
            raise self.unexpected(hint="a name")
        return self.take()

    def several(self, one: Callable[[], _T]) -> list[_T]:
        found = [one()]
        while self.accept(","):
            found.append(one())
        return found

    def take(self) -> Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def accept(self, what: str) -> bool:
        """Takes a keyword (in lower case) or an operator if it is next."""
        token = self.token
        if what != (token.text if token.kind == "op" else token.keyword()):
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
        # EMQX numbers it by the line, but by the length of a name.
        number = len(token.text) if token.kind == "name" else self.sql.count("\n", 0, token.at) + 1
        if token.kind == "end":
            number = self.sql.strip().count("\n") + 1
        emqx = f"{number}: syntax error before: {token.emqx()}"
        return error(self.sql, token.at, f"syntax error before {shown}", hint=hint, emqx=emqx)


def _unquoted(text: str) -> str:
    """As EMQX does it: all quotes at both ends go, doubled ones inside stay."""
    return text.strip("'").strip('"')
