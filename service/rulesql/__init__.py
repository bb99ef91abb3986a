"""A subset of EMQX's rule SQL: parsed, checked and evaluated without any I/O.

`SELECT expr [AS name], ..., * FROM "topic/filter", ... [WHERE expr]`; what an expression may
be is in `parser`, which functions there are in `functions`. It agrees with what a real EMQX
5.8.9 was seen to do; where EMQX does something this subset leaves out, `SqlError` says so.
"""

from service.mqtt.topics import matches
from service.rulesql.errors import RuleException, SqlError
from service.rulesql.guards import payload_paths_without_guard
from service.rulesql.parser import parse, parse_where
from service.rulesql.rule import Rule
from service.rulesql.syntax import Expr
from service.rulesql.terms import UNDEFINED, text, to_json

__all__ = [
    "UNDEFINED",
    "Expr",
    "Rule",
    "RuleException",
    "SqlError",
    "matches",
    "parse",
    "parse_where",
    "payload_paths_without_guard",
    "text",
    "to_json",
]
