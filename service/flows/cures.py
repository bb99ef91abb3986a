"""What is meant by a key that stands in the wrong place, and by a value of the wrong shape."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from service.flows.keys import keys_of
from service.flows.kinds import Mark
from service.flows.lines import Path
from service.flows.tables import File, FlowKeys, McpKeys, Tool

# What other programs call it.
_FLOW_WORDS = {
    "topic": "request is the topic that is answered, reply where the answer goes",
    "topics": "request takes one topic or a list of them",
    "subscribe": 'did you mean "request"?',
    "response": 'did you mean "reply"?',
    "response_topic": 'did you mean "reply"?',
    "reply_topic": 'did you mean "reply"?',
    "request_topic": 'did you mean "request"?',
    "publish": 'did you mean "reply"?',
    "instructions": 'did you mean "system"?',
    "role": 'did you mean "system"?',
    "template": 'did you mean "prompt"?',
    "question": 'did you mean "prompt"?',
    "condition": 'did you mean "where"?',
    "filter": 'did you mean "where"?',
    "window": 'write recent = { topic = "sensors/${device}/telemetry", messages = 20 }',
    "last": 'write recent = { topic = "sensors/${device}/telemetry", messages = 20 }',
    "memory": "write history = { messages = 10 }",
    "reasoning_effort": 'did you mean "effort"?',
    "max_completion_tokens": 'did you mean "max_tokens"?',
    "max_output_tokens": 'did you mean "max_tokens"?',
    "response_format": "write [flows.NAME.schema]",
    "functions": "write [[flows.NAME.tools]]",
    "api_key": "keys stand in the environment: OPENAI_API_KEY, or api_key_env of [providers.NAME]",
    "base_url": 'write it under [providers.NAME], and model = "NAME/model"',
    "provider": 'write it before the model: model = "PROVIDER/model"',
    "name": "a flow's name stands in its table: [flows.NAME]",
    "enabled": "put a # before each of its lines to leave a flow out",
    "retries": "failed calls are tried again until deadline",
    "mcp": 'write [mcp.NAME] as a table of its own, and here tools_from = ["NAME"]',
    "mcp_servers": 'write [mcp.NAME] as a table of its own, and here tools_from = ["NAME"]',
}
_FLOW_WORDS |= {
    name: f"what the API takes beside the keys here stands in params = {{ {name} = … }}"
    for name in (
        *("top_p", "top_k", "seed", "stop", "presence_penalty", "frequency_penalty"),
        *("logit_bias", "service_tier", "metadata", "user", "store"),
    )
}
_TOOL_WORDS = {
    "function": 'did you mean "name"?',
    "desc": 'did you mean "description"?',
    "properties": "write [flows.NAME.tools.parameters], and properties under it",
    "arguments": 'did you mean "parameters"?',
    "reply": 'did you mean "topic"?',
    "publish": 'did you mean "topic"?',
}

_MCP_WORDS = {
    "token": "the token stands in the environment: token_env names the variable",
    "headers": "a bearer token is all that is sent: token_env names its variable",
    "tools": 'did you mean "allow"?',
    "command": "only servers over HTTP are called, by their url",
    "args": "only servers over HTTP are called, by their url",
}
_MCP_TABLES = ("mcpservers", "mcp_servers", "mcp-servers")


def belongs(name: str, data: Mapping[str, Any]) -> str:
    """What to do about the unknown `name` at the top of the file `data`."""
    value = data[name]
    said = data.get("flows")
    flows = list(said) if isinstance(said, dict) else []
    flow = flows[0] if len(flows) == 1 else "NAME"
    own = keys_of(FlowKeys)
    if name in own:
        if own[name].table is Tool:
            return f"write [[flows.{flow}.{name}]]"
        if isinstance(value, dict):
            return f"write [flows.{flow}.{name}], or [defaults.{name}] for all flows"
        return "a flow's key stands under its [flows.NAME], or under [defaults]"
    known = keys_of(File)
    close = _closest(name, known)
    inner = value if isinstance(value, dict) else {}
    if name.lower() in _MCP_TABLES:
        return "write [mcp.NAME] for each server"
    if close == "flows" and inner:
        names = ", ".join(f"[flows.{each}]" for each in inner if isinstance(inner[each], dict))
        return f'did you mean "flows"? write {names or "[flows.NAME]"}'
    if close:
        return f'did you mean "{close}"?'
    if inner.keys() & own.keys():
        return f"a flow's table is [flows.{name}]"
    return f"known here: {', '.join(known)}"


def elsewhere(path: Path, table: Any, value: Any) -> str:
    """Where a key that is unknown at `path` belongs, or nothing."""
    name = str(path[-1])
    known = keys_of(table)
    if table is FlowKeys:
        if len(path) == 3 and _holds_flow_keys(value):
            return f"a flow's name has no point: write [flows.{path[1]}_{name}]"
        if name in _FLOW_WORDS:
            return _FLOW_WORDS[name].replace("[flows.NAME", f"[flows.{_flow(path)}")
        if _closest(name, known):
            return ""
        for key in known.values():
            if key.table and name in keys_of(key.table):
                return f"it belongs to {key.name}: {_within(path, key.name, name, key.many)}"
        return ""
    if table is McpKeys:
        return _MCP_WORDS.get(name, "")
    if table is Tool and name in _TOOL_WORDS:
        return _TOOL_WORDS[name].replace("NAME", _flow(path))
    if name in keys_of(FlowKeys) and path[0] in ("flows", "defaults"):
        header = ".".join(str(part) for part in path[:-1] if isinstance(part, str))
        return f"it is a key of the flow: write it above [{header}], which takes what follows"
    return ""


def shape_hint(path: Path, value: Any) -> str:
    """What to write for a value that is no text, number, table … where one is wanted."""
    key = str(path[-1])
    if path[:1] == ("flows",) and len(path) == 2:
        if isinstance(value, list):
            return f"write [flows.{key}], with one bracket"
        if key in keys_of(FlowKeys):
            return "a flow has a name: write [flows.chat] above its keys"
        return f"write [flows.{key}], and its keys under it"
    if path[:1] in (("providers",), ("prices",), ("mcp",)) and len(path) == 2:
        return f"write [{path[0]}.NAME] above it"
    owner = keys_of(FlowKeys).get(key)
    if len(path) > 3 and path[0] == "flows" and "tools" in path:
        owner = keys_of(Tool).get(key)
    tools = f"write [[flows.{_flow(path)}.tools]], with two brackets, above each tool"
    if key == "tools" or path[-2:-1] == ("tools",):
        return tools
    if key == "recent" and not isinstance(value, dict):
        topic = value if isinstance(value, str) and value else "sensors/${device}/telemetry"
        return f'write recent = {{ topic = "{topic}" }}'
    if key == "history" and not isinstance(value, dict):
        count = value if type(value) is int and value > 1 else 10
        return f"write history = {{ messages = {count} }}"
    if owner is not None and owner.kind and owner.kind.mark in (Mark.SCHEMA, Mark.JSON):
        return f"write a table: [{_header(path)}]"
    if isinstance(value, bool) and owner is not None and owner.kind:
        if owner.kind.mark is Mark.TOPIC:
            return f'write the topic, such as {key} = "{key}/${{user}}"'
        return ""
    if isinstance(value, str):
        return _bare(value)
    if isinstance(value, list):
        return 'write one text; """ takes several lines' if value else ""
    return f'write "{value}"' if type(value) in (int, float) else ""


def _holds_flow_keys(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.keys() & keys_of(FlowKeys).keys())


def _bare(value: str) -> str:
    """A number or a truth in quotes."""
    if value.lower() in ("true", "false"):
        return f"write {value.lower()}, without quotes"
    try:
        float(value)
    except ValueError:
        return ""
    return f"write {value}, without quotes"


def _within(path: Path, key: str, name: str, many: bool) -> str:
    if many:
        return f"write it under [[{_header(path[:-1])}.{key}]]"
    return f"write {key} = {{ {name} = … }}"


def _header(path: Path) -> str:
    return ".".join(str(part) for part in path if isinstance(part, str))


def _flow(path: Path) -> str:
    return str(path[1]) if path[:1] == ("flows",) and len(path) > 1 else "NAME"


def _closest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(known), 1, 0.6)
    return close[0] if close else ""
