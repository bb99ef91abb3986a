"""The JSON Schema of flows.toml, with which an editor completes and checks keys."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from service.flows.keys import keys_of
from service.flows.tables import FLOW_NAME, File


class _Generator(GenerateJsonSchema):
    """Without titles made of key names, which say nothing, and with defaults as one writes them."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> Any:
        return self.generate_inner(schema["schema"])


def json_schema() -> dict[str, Any]:
    """What `emqx-gpt check --schema` prints: draft 7, which TOML editors speak."""
    schema: dict[str, Any] = _without_null(
        TypeAdapter(File).json_schema(schema_generator=_Generator)
    )
    tables = {found.table for found in keys_of(File).values() if found.table}
    tables |= {found.table for table in tables for found in keys_of(table).values() if found.table}
    for table in tables:
        described = schema["$defs"][table.__name__]
        del described["title"]
        for name, found in keys_of(table).items():
            if found.default and found.table is None and not isinstance(found.default, dict):
                write = found.kind.write if found.kind else lambda value: value
                described["properties"][name]["default"] = write(found.default)
    schema["properties"]["flows"]["propertyNames"] = {"pattern": f"^{FLOW_NAME}$"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **schema,
        "required": ["flows"],
        "title": "flows.toml of emqx-gpt",
    }


def _without_null(value: Any) -> Any:
    """TOML has no null: a key that may be absent is not one that may be null."""
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _without_null(item) for key, item in value.items()}
    choices = [choice for choice in value.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del value["anyOf"]
        return {**choices[0], **value}
    return value
