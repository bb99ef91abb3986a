"""The JSON Schema of flows.toml, with which an editor completes and checks keys."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from service.flows.keys import keys_of, tables_in
from service.flows.tables import FLOW_NAME, File


class _Generator(GenerateJsonSchema):
    """Without titles made of key names, which say nothing, and with defaults as one writes them."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: Any) -> Any:
        """TOML has no null: a key that may be absent is not one that may be null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> Any:
        return self.generate_inner(schema["schema"])


def json_schema() -> dict[str, Any]:
    """What `emqx-gpt check --schema` prints: draft 7, which TOML editors speak."""
    schema = TypeAdapter(File).json_schema(schema_generator=_Generator)
    for table in tables_in(File):
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
