"""A subset of EMQX's rule SQL: parsed, checked and evaluated without any I/O.

`SELECT value [AS name], ..., * FROM "topic/filter", ... [WHERE condition]`; what may stand where
is in `parser`, which functions there are in `functions`. It agrees with what a real EMQX 5.8.9
was seen to do (`tests/demo/test_rulesql_recordings.py`); FOREACH, ranges and rarer functions are
left out, and say so.
"""

from service.mqtt.topics import matches
from service.rulesql.foreign import Foreign, foreign, translated
from service.rulesql.guards import equalities_that_hide, payload_paths_without_guard
from service.rulesql.parser import parse, parse_where
from service.rulesql.rule import Rule
from service.rulesql.rule_errors import RuleException, SqlError
from service.rulesql.syntax import Expr
from service.rulesql.terms import UNDEFINED, text, to_json

__all__ = [
    "UNDEFINED",
    "Expr",
    "Foreign",
    "Rule",
    "RuleException",
    "SqlError",
    "equalities_that_hide",
    "foreign",
    "matches",
    "parse",
    "parse_where",
    "payload_paths_without_guard",
    "text",
    "to_json",
    "translated",
]
