"""JSON Schemas of flows.toml, compiled once: does what a model wrote fit? Pure.

In linear time, whatever the answer: patterns without back-tracking, `uniqueItems` by hashing, a
`$ref` that comes back to itself looked at once for each place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs

from service.flows.lines import Path
from service.flows.regex import in_schema

_DATA = frozenset({"const", "enum", "default", "examples"})
_NAMED = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})


_CHOICES = frozenset({"anyOf", "oneOf", "allOf", "if", "not", "contains", "dependentSchemas"})
_UNKNOWN = "it does not fit"
LARGEST = 10_000  # schemas that one may stand for, each $ref taken as what it points to


class Schema(dict[str, Any]):
    """A schema as it was written, which is what a model is sent."""

    _compiled: CompiledSchema | None = None

    @property
    def compiled(self) -> CompiledSchema:
        """Made when it is first needed. Raises RegexError, jsonschema_rs.ValidationError."""
        if self._compiled is None:
            self._compiled = CompiledSchema(self)
        return self._compiled


class CompiledSchema:
    """Raises RegexError, jsonschema_rs.ValidationError."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._written: dict[str, str] = {}
        # The words for a fault are put together from all ways in which an answer could have fit,
        # and a $ref that comes back to itself makes more of them at each level.
        self._worded = not (comes_back(schema) and _uses(schema, _CHOICES))
        self._validator = jsonschema_rs.validator_for(
            self._with_patterns(schema),
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=False,
            offline=True,
        )

    def fault(self, value: Any) -> str | None:
        """What does not fit, and where: "$.on: 1 is not of type …"."""
        if self._validator.is_valid(value):
            return None
        if not self._worded:
            return f"$: {_UNKNOWN}"
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            message = error.message[:2000]
            for translated, written in self._written.items():
                message = message.replace(translated, written)
            return f"{_path(error.instance_path)}: {message}"
        return f"$: {_UNKNOWN}"

    def _pattern(self, text: str) -> str:
        translated = in_schema(text)
        self._written[translated] = text
        return translated

    def _with_patterns(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self._with_patterns(one) for one in schema]
        if not isinstance(schema, Mapping):
            return schema
        made: dict[str, Any] = {}
        for key, value in schema.items():
            if key in _DATA:
                made[key] = value
            elif key == "pattern" and isinstance(value, str):
                made[key] = self._pattern(value)
            elif key == "patternProperties" and isinstance(value, Mapping):
                made[key] = {
                    self._pattern(name): self._with_patterns(one) for name, one in value.items()
                }
            elif key in _NAMED and isinstance(value, Mapping):
                made[key] = {name: self._with_patterns(one) for name, one in value.items()}
            else:
                made[key] = self._with_patterns(value)
        return made


def patterns_of(path: Path, schema: Any) -> Iterator[tuple[Path, str]]:
    """The patterns of a schema, each with its place."""
    items: Any = schema.items() if isinstance(schema, Mapping) else ()
    for key, value in enumerate(schema) if isinstance(schema, list) else items:
        place = (*path, key)
        if key == "pattern" and isinstance(value, str):
            yield place, value
        elif key in _NAMED | {"patternProperties"} and isinstance(value, Mapping):
            for name, one in value.items():
                if key == "patternProperties":
                    yield (*place, name), name
                yield from patterns_of((*place, name), one)
        elif key not in _DATA:
            yield from patterns_of(place, value)


def extent(schema: Mapping[str, Any]) -> int:
    """How many schemas it stands for, each $ref taken as what it points to, but not within
    itself."""
    return _Refs(schema).size(schema)


def comes_back(schema: Mapping[str, Any]) -> bool:
    """Whether a $ref in it leads back to itself."""
    refs = _Refs(schema)
    refs.size(schema)
    return refs.circular


class _Refs:
    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._top = schema
        self._sizes: dict[str, int] = {}
        self.circular = False

    def size(self, value: Any) -> int:
        if isinstance(value, list):
            return 1 + sum(map(self.size, value))
        if not isinstance(value, Mapping):
            return 0
        total = 1 + sum(map(self.size, value.values()))
        for name in ("$ref", "$dynamicRef"):
            if isinstance(ref := value.get(name), str):
                total += self._target(ref)
        return total

    def _target(self, ref: str) -> int:
        if ref not in self._sizes:
            self._sizes[ref] = -1
            self._sizes[ref] = self.size(target(self._top, ref))
        elif self._sizes[ref] < 0:
            self.circular = True
            return 1
        return self._sizes[ref]


def target(schema: Any, ref: str) -> Any:
    """What "#/$defs/NAME" points to, or None; for an anchor ("#name") all of the schema."""
    if not ref.startswith("#/"):
        return schema
    for part in ref[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, Mapping) and name in schema:
            schema = schema[name]
        elif isinstance(schema, list) and name.isdecimal() and int(name) < len(schema):
            schema = schema[int(name)]
        else:
            return None
    return schema


def _uses(value: Any, keys: frozenset[str]) -> bool:
    if isinstance(value, list):
        return any(_uses(one, keys) for one in value)
    if not isinstance(value, Mapping):
        return False
    return not keys.isdisjoint(value) or any(_uses(one, keys) for one in value.values())


def fault_in(value: Any, schema: Mapping[str, Any]) -> str | None:
    """What of `value` does not fit, and where; None if it fits."""
    compiled = schema.compiled if isinstance(schema, Schema) else CompiledSchema(schema)
    return compiled.fault(value)


def _path(parts: list[str | int]) -> str:
    return "$" + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in parts)
