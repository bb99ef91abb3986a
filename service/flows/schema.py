"""The JSON Schema of flows.toml, with which an editor completes and checks keys."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from service.flows.keys import FLOW_NAME, FileKeys


class _Generator(GenerateJsonSchema):
    """Without the titles that pydantic makes of key names: they say nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """What `emqx-gpt check --schema` prints: draft 7, which TOML editors speak."""
    schema: dict[str, Any] = _without_null(
        FileKeys.model_json_schema(by_alias=True, schema_generator=_Generator)
    )
    for table in schema["$defs"].values():
        del table["title"]
    schema["properties"]["flows"]["propertyNames"] = {"pattern": f"^{FLOW_NAME}$"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **schema,
        "title": "flows.toml of emqx-gpt",
    }


def _without_null(value: Any) -> Any:
    """TOML has no null: a key that may be absent is not one that may be null."""
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _without_null(item) for key, item in value.items()}
    if value.get("default", 0) is None:
        del value["default"]
    choices = [choice for choice in value.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del value["anyOf"]
        return {**choices[0], **value}
    return value
