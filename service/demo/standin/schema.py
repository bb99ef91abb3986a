"""What EMQX makes of a resource's configuration: checks, defaults, what it masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.demo.standin.http import Target
from service.demo.standin.settings import Settings, seconds, size
from service.rulesql import SqlError, parse

MASK = "******"
_SECRET_HEADERS = ("authorization", "proxy-authorization")
_DEFAULT_HEADERS = {
    "accept": "application/json",
    "cache-control": "no-cache",
    "connection": "keep-alive",
    "content-type": "application/json",
    "keep-alive": "timeout=5",
}
_REQUIRED = object()
_ABSENT = object()


class Invalid(ValueError):
    """A value that EMQX's schema refuses: where, why, and what it was."""

    def __init__(self, path: str, reason: object, value: object = None) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.value = value

    def as_json(self) -> dict[str, object]:
        """In the words of EMQX."""
        said = {"reason": self.reason, "path": self.path, "kind": "validation_error"}
        return said if self.reason == "required_field" else {"value": self.value, **said}


@dataclass(frozen=True, slots=True)
class _Value:
    check: Callable[[object], object]
    default: object


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def _boolean(value: object) -> object:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("expected a boolean")
    return value


def _at_least(least: int) -> Callable[[object], object]:
    def check(value: object) -> object:
        number = int(value) if isinstance(value, str) and value.isdigit() else value
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ValueError(f"expected an integer >= {least}")
        return number

    return check


def _one_of(*values: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value not in values:
            raise ValueError(f"expected one of {', '.join(values)}")
        return value

    return check


def _duration(value: object) -> object:
    seconds(value)
    return value


def _size(value: object) -> object:
    size(value)
    return value


def _url(value: object) -> object:
    Target.parse(str(_text(value)))
    return value


def _headers(value: object) -> object:
    if not isinstance(value, Mapping):
        raise ValueError("expected an object")
    headers = {str(key): str(item) for key, item in value.items()}
    if any(set(key + item) & set("\r\n") for key, item in headers.items()):
        raise ValueError("a header with a line break")
    return headers


def _any(value: object) -> object:
    return value


_Shape = Mapping[str, "_Value | _Shape"]

_CONNECTOR: _Shape = {
    "connect_timeout": _Value(_duration, "15s"),
    "description": _Value(_text, ""),
    "enable": _Value(_boolean, True),
    "enable_pipelining": _Value(_at_least(1), 100),
    "headers": _Value(_headers, _DEFAULT_HEADERS),
    "pool_size": _Value(_at_least(1), 8),
    "pool_type": _Value(_one_of("random", "hash"), "random"),
    "resource_opts": {
        "health_check_interval": _Value(_duration, "15s"),
        "start_after_created": _Value(_boolean, True),
        "start_timeout": _Value(_duration, "5s"),
    },
    "ssl": {
        "cacertfile": _Value(_text, _ABSENT),
        "certfile": _Value(_text, _ABSENT),
        "keyfile": _Value(_text, _ABSENT),
        "ciphers": _Value(_any, []),
        "depth": _Value(_at_least(0), 10),
        "enable": _Value(_boolean, False),
        "hibernate_after": _Value(_duration, "5s"),
        "log_level": _Value(_text, "notice"),
        "reuse_sessions": _Value(_boolean, True),
        "secure_renegotiate": _Value(_boolean, True),
        "server_name_indication": _Value(_text, _ABSENT),
        "verify": _Value(_one_of("verify_peer", "verify_none"), "verify_none"),
        "versions": _Value(_any, ["tlsv1.3", "tlsv1.2"]),
    },
    "tags": _Value(_any, _ABSENT),
    "url": _Value(_url, _REQUIRED),
}
_ACTION: _Shape = {
    "connector": _Value(_text, _REQUIRED),
    "description": _Value(_text, ""),
    "enable": _Value(_boolean, True),
    "parameters": {
        "body": _Value(_text, _ABSENT),
        "headers": _Value(_headers, _DEFAULT_HEADERS),
        "max_retries": _Value(_at_least(0), 2),
        "method": _Value(_one_of("post", "put", "get", "delete"), "post"),
        "path": _Value(_text, ""),
    },
    "resource_opts": {
        "health_check_interval": _Value(_duration, "15s"),
        "inflight_window": _Value(_at_least(1), 100),
        "max_buffer_bytes": _Value(_size, "256MB"),
        "query_mode": _Value(_one_of("sync", "async"), "async"),
        "request_ttl": _Value(_duration, "45s"),
        "worker_pool_size": _Value(_at_least(1), 16),
    },
    "tags": _Value(_any, _ABSENT),
}
_RULE: _Shape = {
    "actions": _Value(_any, []),
    "description": _Value(_text, ""),
    "enable": _Value(_boolean, True),
    "metadata": _Value(_any, _ABSENT),
    "name": _Value(_text, ""),
    "sql": _Value(_text, _REQUIRED),
}
_REPUBLISH: _Shape = {
    "direct_dispatch": _Value(_any, False),
    "mqtt_properties": _Value(_any, {}),
    "payload": _Value(_text, "${payload}"),
    "qos": _Value(_any, "${qos}"),
    "retain": _Value(_any, "${retain}"),
    "topic": _Value(_text, _REQUIRED),
    "user_properties": _Value(_text, "${user_properties}"),
}


def connector(conf: object, path: str) -> Settings:
    """A connector with its defaults. Raises Invalid."""
    return _checked(_CONNECTOR, conf, path)


def action(conf: object, path: str) -> Settings:
    """An action with its defaults. Raises Invalid."""
    return _checked(_ACTION, conf, path)


def rule(conf: object, path: str) -> Settings:
    """A rule with its defaults, its SQL understood. Raises Invalid."""
    checked = _checked(_RULE, conf, path)
    sql = str(checked["sql"])
    try:
        parse(sql)
    except SqlError as exc:
        raise Invalid(f"{path}.sql", parse_error(exc, sql), sql) from None
    actions = checked["actions"]
    if not isinstance(actions, list):
        raise Invalid(f"{path}.actions", "expected an array", actions)
    checked["actions"] = [
        _rule_action(item, f"{path}.actions.{number}") for number, item in enumerate(actions, 1)
    ]
    return checked


def parse_error(exc: SqlError, sql: str) -> str:
    """A SqlError as EMQX prints it; what the subset does not know says so in clear words."""
    if exc.emqx == exc.message:
        return f'{{parse_error,{{"{exc}"}}}}'
    names = ",".join(f"{{'NAME',{len(word)},\"{word}\"}}" for word in sql.split())
    said = exc.emqx.replace('"', '\\"')
    return f'{{parse_error,{{"{said}",[{names}]}}}}'


def _rule_action(item: object, path: str) -> object:
    if isinstance(item, str):
        return item
    if not isinstance(item, Mapping) or item.get("function") not in ("republish", "console"):
        raise Invalid(path, "neither an action's id nor republish nor console", item)
    if item["function"] == "console":
        return {"function": "console"}
    args = _checked(_REPUBLISH, item.get("args", {}), f"{path}.args")
    return {"args": dict(args), "function": "republish"}


def _checked(shape: _Shape, conf: object, path: str) -> Settings:
    if not isinstance(conf, Mapping):
        raise Invalid(path, "expected an object", conf)
    for key in conf:
        if key not in shape:
            raise Invalid(f"{path}.{key}", "unknown_fields", conf[key])
    checked = Settings()
    for key, kind in shape.items():
        here = f"{path}.{key}"
        if not isinstance(kind, _Value):
            checked[key] = dict(_checked(kind, conf.get(key, {}), here))
        elif conf.get(key) is not None:
            try:
                checked[key] = kind.check(conf[key])
            except ValueError as exc:
                raise Invalid(here, str(exc), conf[key]) from None
        elif kind.default is _REQUIRED:
            raise Invalid(here, "required_field")
        elif kind.default is not _ABSENT:
            checked[key] = kind.default
    return checked


def masked(value: object, *, is_headers: bool = False) -> object:
    """A configuration for showing: secret headers become six stars."""
    if isinstance(value, Mapping):
        return {
            key: MASK
            if is_headers and str(key).lower() in _SECRET_HEADERS
            else masked(item, is_headers=key == "headers")
            for key, item in value.items()
        }
    return value


def unmasked(new: object, old: object) -> object:
    """A configuration that was read back masked keeps the secrets it had."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        return {key: unmasked(item, old.get(key)) for key, item in new.items()}
    return old if new == MASK and old is not None else new
