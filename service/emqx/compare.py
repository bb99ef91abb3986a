"""Is what EMQX reads back what we want? Field by field, by meaning. Pure.

Only the settings that we name are looked at. EMQX adds defaults and stamps, masks secrets,
writes a duration in its own way and keeps the line breaks of an SQL or not: none of that is
a difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.emqx import resource_names
from service.emqx.reply_rule import KEY_HOLE, without_keys
from service.emqx.resources import Placeholder

MASK = "******"
_SECRET = "headers.authorization"  # noqa: S105 - the place of one, not a secret
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SPANS = ("_interval", "_ttl", "_timeout")


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; `have` None: not set, `want` None: it has to go. Never a secret."""

    path: str
    have: Any
    want: Any


def differences(
    want: Mapping[str, Any], have: Mapping[str, Any], *, force: bool = False
) -> tuple[Difference, ...]:
    """What keeps `have` (as read back) from being `want`, in the order of `want`.

    A masked token is compared by its fingerprint; one that was loaded by hand has none, and
    is no difference. With `force` the token is one in any case.
    """
    fields = list(_walk(want, have, ""))
    wanted = resource_names.fingerprint_in(str(want.get("description", "")))
    found = resource_names.fingerprint_in(str(have.get("description", "")))
    if wanted and (force or found not in (None, wanted)) and not _has_secret(fields):
        token = "another token" if found else "a token loaded by hand"
        fields.append(Difference(_SECRET, token if found != wanted else MASK, "the current token"))
    fields += [Difference(path, value, None) for path, value in unwanted(have)]
    options = have.get("resource_opts")
    if isinstance(options, Mapping) and options.get("dispatch_strategy") == "random":
        # EMQX 6.2.1 and later: one client's messages would go to any buffer worker.
        fields.append(Difference("resource_opts.dispatch_strategy", "random", "per_clientid"))
    return tuple(fields)


def unwanted(have: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings of an action that break ours, by path."""
    parameters = have.get("parameters")
    if not isinstance(parameters, Mapping):
        return
    if parameters.get("body"):
        # A body template is not escaped: the first quote in a payload makes it invalid JSON.
        yield "parameters.body", parameters["body"]
    for name in parameters.get("headers") or {}:
        if name.lower() == "authorization":  # it goes before the connector's
            yield f"parameters.headers.{name}", MASK


def _walk(want: Mapping[str, Any], have: Mapping[str, Any], at: str) -> Iterator[Difference]:
    lower = {key.lower(): value for key, value in have.items()} if at == "headers." else have
    for key, wanted in want.items():
        path, found = f"{at}{key}", lower.get(key)
        if isinstance(wanted, Mapping) and isinstance(found, Mapping | None):
            yield from _walk(wanted, found or {}, f"{path}.")
        elif path == _SECRET:
            if field := _secret(wanted, found):
                yield field
        elif not _same(key, wanted, found):
            yield _keyless(found, wanted) if key == "sql" else Difference(path, found, wanted)


def _same(key: str, want: Any, have: Any) -> bool:
    if isinstance(want, Placeholder):
        return have is not None
    if have is None:
        return False
    if isinstance(want, Mapping):
        return isinstance(have, Mapping) and not list(_walk(want, have, ""))
    if key == "fallback_actions":  # somebody may have set more of them
        return isinstance(have, list) and all(
            any(_same("", one, other) for other in have) for one in want
        )
    if isinstance(want, list):
        return (
            isinstance(have, list)
            and len(want) == len(have)
            and all(_same(key, one, other) for one, other in zip(want, have, strict=True))
        )
    if key.endswith(_SPANS):
        return milliseconds(want) == milliseconds(have)
    if key == "sql":
        if KEY_HOLE in want:
            have = without_keys(str(have))
        return squeezed(str(want)) == squeezed(str(have))
    if key == "url":
        return str(want).rstrip("/") == str(have).rstrip("/")
    if key == "description":
        return resource_names.without_fingerprint(str(want)) == resource_names.without_fingerprint(
            str(have)
        )
    return _plain(want) == _plain(have)


def _keyless(have: Any, want: Any) -> Difference:
    """A difference in SQL; keys of the reply rule are not shown."""
    shown = without_keys(str(have)), without_keys(str(want))
    if squeezed(shown[0]) == squeezed(shown[1]):
        return Difference("sql", "another REPLY_KEY", "the current REPLY_KEY")
    return Difference("sql", *shown)


def _secret(want: Any, have: Any) -> Difference | None:
    if have is None:
        return Difference(_SECRET, None, "the current token")
    if isinstance(want, Placeholder) or have in (MASK, want):
        return None
    return Difference(_SECRET, "another token", "the current token")


def _has_secret(fields: list[Difference]) -> bool:
    return any(field.path == _SECRET for field in fields)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def milliseconds(value: Any) -> float | str:
    """`"1h30m"`, `"600s"` or a number of milliseconds; anything else stays what it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return text
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def squeezed(sql: str) -> str:
    """An SQL with one space wherever there is any, but what stands in quotes as it is."""
    parts = re.split(r"('[^']*'|\"[^\"]*\")", sql)
    parts[::2] = [re.sub(r"\s+", " ", part) for part in parts[::2]]
    return "".join(parts).strip()
