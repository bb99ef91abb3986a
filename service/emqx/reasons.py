"""EMQX's reasons for refusing something, boiled down to one plain line. Pure.

What it answers is JSON, JSON in a string, an Erlang term, or a page of configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from service.bodies import parsed

_LENGTH = 240
_ERLANG = re.compile(r"(?P<key>path|reason)\s*=>\s*(?:<<)?\"?(?P<value>[^\",}\]>]+)")
_CONNECTOR = "connector_not_found_or_wrong_type"


def reason(answer: Any) -> str:
    """One line, at most 240 characters; "" where nothing was said."""
    if isinstance(answer, dict) and "errors" in answer:
        said = "; ".join(_errors(answer["errors"]))
    elif isinstance(answer, dict):
        said = _message(answer.get("message", ""))
    else:
        said = _message(answer)
    line = " ".join(said.split())
    return line if len(line) <= _LENGTH else line[: _LENGTH - 1] + "…"


def _errors(errors: Any) -> Iterator[str]:
    if not isinstance(errors, dict):
        yield _message(errors)
    elif "reason" in errors:
        yield _fields(errors)
    else:
        for root, error in errors.items():
            if isinstance(error, dict):
                yield _fields(error)
            elif "root_key_not_found" in str(error):
                yield f"{root} is no part of EMQX's configuration"
            else:
                yield f"{root}: {_message(error)}"


def _message(message: Any) -> str:
    if isinstance(message, dict):
        return _fields(message)
    text = message if isinstance(message, str) else repr(message)
    if text.startswith("{"):
        try:
            inner = parsed(text)
        except ValueError:
            inner = None
        if isinstance(inner, dict):
            return _fields(inner)
    if _CONNECTOR in text:
        return "the action's connector does not exist"
    # Before "Reason:" EMQX prints the configuration it could not merge.
    text = text.rpartition("\nReason:")[2]
    if "validation_error" in text:
        return _fields({match["key"]: match["value"] for match in _ERLANG.finditer(text)})
    # {<<"a sentence">>,…} and {"5: syntax error before: \"SELEC\"",[…tokens…]}
    if sentence := re.match(r'\{(?:<<"([^"]+)">>|"(.*?)",\s*\[)', text):
        return (sentence[1] or sentence[2]).replace('\\"', '"')
    return text.split(", [{", 1)[0]  # what follows is a stack trace


def _fields(fields: dict[str, Any]) -> str:
    """`path: reason`, from a validation error."""
    why = fields.get("reason", fields.get("message", fields))
    if isinstance(why, dict | list):
        why = orjson.dumps(why).decode()
    said = str(why)
    # {parse_error,{"5: syntax error before: \"SELEC\"",[…tokens…]}}
    if found := re.search(r'parse_error,\{"(.*?)",\[', said):
        said = found[1].replace('\\"', '"')
    if line := fields.get("line"):
        said = f"line {line}: {said}"
    return f"{path}: {said}" if (path := fields.get("path")) else said
