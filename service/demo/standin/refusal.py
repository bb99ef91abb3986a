"""What EMQX says of a value that it refuses: over REST in JSON, for rules in Erlang's terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_ABSENT = object()


class Invalid(ValueError):
    """A value that EMQX's schema refuses: where, why, what it was, and what else EMQX tells."""

    def __init__(
        self, path: str | None, reason: object, value: object = _ABSENT, **more: object
    ) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.value = value
        self.more = more

    def as_json(self) -> dict[str, object]:
        """In the words of EMQX."""
        said = {**self.more, "kind": "validation_error"}
        if self.reason is not None:
            said["reason"] = self.reason
        if self.path is not None:
            said["path"] = self.path
        if self.value is not _ABSENT:
            said["value"] = self.value
        return said

    def in_erlang(self) -> str:
        """The same as EMQX prints it for rules."""
        said = self.as_json() | {"kind": Term("validation_error")}
        if self.path is not None:
            said["path"] = Term(f'"{self.path}"')
        if self.reason == "required_field":
            said["reason"] = Term("required_field")
        return erlang(said)


class Term(str):
    """Printed as it is: an atom, or a term already in Erlang's words."""


def erlang(value: object, *, is_data: bool = False) -> str:
    """A JSON-like value as Erlang prints it; the keys of data are binaries, others atoms."""
    if isinstance(value, Term):
        return str(value)
    if isinstance(value, Mapping):
        pairs = sorted(value.items(), key=lambda pair: pair[0].strip("'"))
        inside = (
            f"{erlang(key) if is_data else key} => {erlang(item, is_data=is_data)}"
            for key, item in pairs
        )
        return "#{" + ",".join(inside) + "}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if isinstance(value, int | float) else f'<<"{value}">>'


def expected(kind: str) -> dict[str, object]:
    return {"expected": f"{kind}()"}


def unknown_fields(given: Mapping[str, object], known: Iterable[str], path: str) -> None:
    """Raises Invalid for keys that are none of `known`."""
    names = set(known)
    if unknown := sorted(set(given) - names):
        unmatched = sorted(names - set(given))
        more = {"unknown": _first(unknown), "unmatched": _first(unmatched)}
        raise Invalid(path, "unknown_fields", **more)


def _first(names: list[str]) -> str:
    return ",".join([*names[:2], "..."] if len(names) > 2 else names)
