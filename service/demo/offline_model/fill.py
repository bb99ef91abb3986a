"""Fills a JSON Schema from a text: what the offline model has in place of reasoning.

The same text and schema always give the same document. A value is taken from the text
where the text says it (by the property's name, a unit, an enum's word); what is required
but not said gets a fallback that fits. Limits: `pattern` is only met if the text holds a
match, and `not`, `if`, `patternProperties` and `uniqueItems` are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from service.demo.offline_model.reading import NOTHING, Reading, Schema, bounded, cut_to_fit

_SEPARATORS = re.compile(
    r"(?:,(?!\d)|[;，；、。\n])+\s*(?:(?:and|und)\s+)?|\s+(?:and|und)\s+|\.\s+"
)
# "T=21.5 H=40" is two readings too.
_BETWEEN_READINGS = re.compile(r"(?<=[\d%])\s+(?=[A-Za-z_\u4e00-\u9fff]+\s?[:=]\s?-?\d)")


def fill(schema: Schema, text: str, *, before: str = "", eager: bool = False) -> Any:
    """The document. `before`: earlier text, where an enum's value may stand.

    `eager` is for the arguments of a command: a number without a name goes to the first
    property that takes one, and a switch that nobody mentions is meant to be on.
    """
    return _Filler(schema, text, before, eager).value(schema, "", needed=True)


def _kinds(schema: Schema) -> list[str]:
    kind = schema.get("type")
    if isinstance(kind, list):
        return [each for each in kind if isinstance(each, str)] or ["string"]
    if isinstance(kind, str):
        return [kind]
    if "properties" in schema:
        return ["object"]
    return ["array"] if "items" in schema else ["string"]


def _names(schema: Any, depth: int = 0) -> Iterator[tuple[str, bool]]:
    """Every property name anywhere in the schema, and whether it takes a number."""
    if depth > 12:
        return
    if isinstance(schema, Mapping):
        if isinstance(properties := schema.get("properties"), Mapping):
            yield from ((name, _is_number(each)) for name, each in properties.items())
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from _names(each, depth + 1)


def _is_number(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    branches = [*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())]
    return bool({"number", "integer"} & set(_kinds(schema))) or any(map(_is_number, branches))


class _Filler:
    def __init__(self, root: Schema, text: str, before: str, eager: bool) -> None:
        self.root = root
        self.reading = Reading(text, dict(_names(root)), before, eager)
        self.refs = ["#"]

    def value(self, schema: Any, name: str, *, needed: bool) -> Any:
        """What the text says for this schema; NOTHING, or a fallback where it is needed."""
        if not isinstance(schema, Mapping):
            return self.reading.text if needed else NOTHING
        if isinstance(ref := schema.get("$ref"), str):
            return self._reference(ref, name, needed)
        if "const" in schema:
            said = self.reading.options([schema["const"]], self.reading.text)
            return schema["const"] if needed or said else NOTHING
        if isinstance(options := schema.get("enum"), list) and options:
            return self.reading.enum(options, needed)
        if isinstance(parts := schema.get("allOf"), list):
            return self.value(self._merged(schema, parts), name, needed=needed)
        for key in ("anyOf", "oneOf"):
            if isinstance(branches := schema.get(key), list) and branches:
                return self._either(branches, name, needed)
        kinds = _kinds(schema)
        if len(kinds) > 1:
            return self._either([{**schema, "type": kind} for kind in kinds], name, needed)
        match kinds[0]:
            case "object":
                return self._object(schema, needed)
            case "array":
                return self._array(schema, name, needed)
            case "number" | "integer" as kind:
                return self.reading.number(schema, name, needed, kind == "integer")
            case "boolean":
                return self.reading.boolean(name, needed)
            case "null":
                return None if needed else NOTHING
            case _:
                return self.reading.string(schema, name, needed)

    def _reference(self, ref: str, name: str, needed: bool) -> Any:
        # A schema may hold itself; one level of it is enough.
        if ref in self.refs and not needed:
            return NOTHING
        if self.refs.count(ref) > 2:
            return None  # it insists on an endless document: no such document exists
        self.refs.append(ref)
        try:
            return self.value(self._target(ref), name, needed=needed)
        finally:
            self.refs.pop()

    def _target(self, ref: str) -> Any:
        target: Any = self.root
        for step in ref.removeprefix("#").strip("/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            if step:
                target = target.get(step, {}) if isinstance(target, Mapping) else {}
        return target

    def _merged(self, schema: Schema, parts: list[Any]) -> Schema:
        merged: dict[str, Any] = {key: each for key, each in schema.items() if key != "allOf"}
        for part in parts:
            if isinstance(part, Mapping) and isinstance(ref := part.get("$ref"), str):
                part = self._target(ref)
            for key, each in part.items() if isinstance(part, Mapping) else ():
                if key == "properties":
                    merged[key] = {**merged.get(key, {}), **each}
                elif key == "required":
                    merged[key] = [*merged.get(key, []), *each]
                else:
                    merged[key] = each
        return merged

    def _either(self, branches: list[Any], name: str, needed: bool) -> Any:
        rest = [b for b in branches if not (isinstance(b, Mapping) and b.get("type") == "null")]
        for branch in rest:
            if (found := self.value(branch, name, needed=False)) is not NOTHING:
                return found
        if not needed:
            return NOTHING
        return None if len(rest) < len(branches) else self.value(rest[0], name, needed=True)

    def _object(self, schema: Schema, needed: bool) -> Any:
        properties = schema.get("properties") or {}
        found = {
            name: value
            for name, each in properties.items()
            if (value := self.value(each, name, needed=False)) is not NOTHING
        }
        if not found and not needed:
            return NOTHING
        # Only now the leftovers: what has a label must not go to who merely needs something.
        for name in schema.get("required") or []:
            if name not in found:
                found[name] = self.value(properties.get(name, {}), name, needed=True)
        return {name: found[name] for name in [*properties, *found] if name in found}

    def _array(self, schema: Schema, name: str, needed: bool) -> Any:
        items = schema.get("items", {})
        by_name = isinstance(items, Mapping) and "$ref" in items
        target = self._target(items["$ref"]) if by_name else items
        least, most = schema.get("minItems") or 0, schema.get("maxItems")
        found = self._items(items, target, name, needed or least > 0)
        if not found and not needed:
            return NOTHING
        while len(found) < least:
            found.append(self.value(items, name, needed=True))
        return found if most is None else found[:most]

    def _items(self, items: Any, target: Any, name: str, needed: bool) -> list[Any]:
        if not isinstance(target, Mapping):
            return []
        if isinstance(options := target.get("enum"), list):
            return self.reading.options(options, self.reading.text)
        clauses = [each for each in _SEPARATORS.split(self.reading.text) if each.strip()]
        kind = _kinds(target)[0] if {"type", "properties"} & set(target) else ""
        match kind:
            case "object" if items is target or items["$ref"] not in self.refs:
                return self._objects(target, clauses)
            case "number" | "integer":
                whole = kind == "integer"
                return [bounded(target, each, whole) for each in self.reading.numbers(name)]
            case "string" if needed and not {"const", "format", "pattern"} & set(target):
                return [cut_to_fit(target, clause.strip(" .!?")) for clause in clauses]
            case "object":
                return []
        one = self.value(items, "", needed=False)
        return [] if one is NOTHING else [one]

    def _objects(self, target: Schema, clauses: list[str]) -> list[Any]:
        """One object for each clause that says something for it."""
        whole, found = self.reading, []
        names = dict(_names(target))
        counts = any(names.get(name) for name in target.get("required") or [])
        for clause in (part for each in clauses for part in _BETWEEN_READINGS.split(each)):
            self.reading = Reading(clause, names, "", whole.eager)
            if counts and not self.reading.figures:
                continue
            each = self._object(target, needed=False)
            if each is not NOTHING:
                found.append(each)
        self.reading = whole
        return found
