"""What EMQX makes of a resource's configuration: checks, defaults, what it masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.demo.standin.raw_http import Target
from service.demo.standin.refusal import Invalid, Term, expected, unknown_fields
from service.demo.standin.resource_config import Settings, seconds, size
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


class _NotIt(Exception):
    """A value that a check refuses, with EMQX's reason."""

    def __init__(self, reason: object) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Value:
    check: Callable[[object], object]
    default: object


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise _NotIt(expected("binary"))
    return value


def _boolean(value: object) -> object:
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise _NotIt(expected("boolean"))
    return value


def _at_least(least: int) -> Callable[[object], object]:
    def check(value: object) -> object:
        number = int(value) if isinstance(value, str) and value.isdigit() else value
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise _NotIt(expected("pos_integer" if least else "non_neg_integer"))
        return number

    return check


def _one_of(*values: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value not in values:
            raise _NotIt("unable_to_convert_to_enum_symbol")
        return value

    return check


def _duration(value: object) -> object:
    try:
        seconds(value)
    except ValueError:
        raise _NotIt("Not a valid duration") from None
    return value


def _size(value: object) -> object:
    try:
        size(value)
    except ValueError:
        raise _NotIt("Not a valid size") from None
    return value


def _url(value: object) -> object:
    text = str(_text(value))
    try:
        Target.parse(text)
    except ValueError:
        missing = "host" if ":" in text else "scheme"
        raise Invalid(None, f"Missing {missing} in URL: {text}") from None
    return value


def _headers(value: object) -> object:
    if not isinstance(value, Mapping):
        raise _NotIt(expected("map"))
    headers = {str(key): str(item) for key, item in value.items()}
    if any(set(key + item) & set("\r\n") for key, item in headers.items()):
        raise _NotIt("a header with a line break")
    return headers


def _any(value: object) -> object:
    return value


def _fallbacks(value: object) -> object:
    if not isinstance(value, list):
        raise _NotIt(expected("array"))
    return [_fallback(item) for item in value]


def _fallback(item: object) -> object:
    if isinstance(item, Mapping) and item.get("kind") == "reference":
        if not isinstance(item.get("type"), str) or not isinstance(item.get("name"), str):
            raise _NotIt("a reference has a type and a name")
        return dict(item)
    if isinstance(item, Mapping) and item.get("kind") == "republish":
        args = _checked(_REPUBLISH, item.get("args", {}), "fallback_actions.args")
        return {"kind": "republish", "args": dict(args)}
    raise _NotIt("neither a reference nor republish")


_Shape = Mapping[str, "_Value | _Shape"]

_CONNECTOR_OPTIONS: _Shape = {
    "health_check_interval": _Value(_duration, "15s"),
    "start_after_created": _Value(_boolean, True),
    "start_timeout": _Value(_duration, "5s"),
}
_SSL: _Shape = {
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
}
_CONNECTOR: _Shape = {
    "connect_timeout": _Value(_duration, "15s"),
    "description": _Value(_text, ""),
    "enable": _Value(_boolean, True),
    "enable_pipelining": _Value(_at_least(1), 100),
    "headers": _Value(_headers, _DEFAULT_HEADERS),
    "pool_size": _Value(_at_least(1), 8),
    "pool_type": _Value(_one_of("random", "hash"), "random"),
    "resource_opts": _CONNECTOR_OPTIONS,
    "ssl": _SSL,
    "tags": _Value(_any, _ABSENT),
    "url": _Value(_url, _REQUIRED),
}
_ACTION_OPTIONS: _Shape = {
    "health_check_interval": _Value(_duration, "15s"),
    "inflight_window": _Value(_at_least(1), 100),
    "max_buffer_bytes": _Value(_size, "256MB"),
    "query_mode": _Value(_one_of("sync", "async"), "async"),
    "request_ttl": _Value(_duration, "45s"),
    "worker_pool_size": _Value(_at_least(1), 16),
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
        "path": _Value(_text, _ABSENT),
    },
    "resource_opts": _ACTION_OPTIONS,
    "tags": _Value(_any, _ABSENT),
}
# what EMQX 6 added, and what it has by another default
_CONNECTOR_6: _Shape = {
    **_CONNECTOR,
    "max_inactive": _Value(_duration, "10s"),
    "resource_opts": {
        **_CONNECTOR_OPTIONS,
        "health_check_timeout": _Value(_duration, "60s"),
    },
    "ssl": {
        **_SSL,
        "middlebox_comp_mode": _Value(_boolean, True),
        "reuse_sessions": _Value(_boolean, False),
    },
}
_ACTION_6: _Shape = {
    **_ACTION,
    "fallback_actions": _Value(_fallbacks, []),
    "resource_opts": {
        **_ACTION_OPTIONS,
        "dispatch_strategy": _Value(_one_of("per_clientid", "random"), "per_clientid"),
        "health_check_interval_jitter": _Value(_duration, "0ms"),
        "health_check_timeout": _Value(_duration, "60s"),
    },
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


def connector(
    conf: object, path: str, *, newer: bool = False, more: tuple[str, ...] = ()
) -> Settings:
    """A connector with its defaults, EMQX 6's if `newer`; `more` may stand beside.

    Raises Invalid.
    """
    return _checked(_CONNECTOR_6 if newer else _CONNECTOR, conf, path, more)


def action(conf: object, path: str, *, newer: bool = False, more: tuple[str, ...] = ()) -> Settings:
    """An action, likewise. Raises Invalid."""
    return _checked(_ACTION_6 if newer else _ACTION, conf, path, more)


def rule(conf: object, path: str) -> Settings:
    """A rule with its defaults, its SQL understood. Raises Invalid."""
    checked = _checked(_RULE, conf, path)
    sql = str(checked["sql"])
    try:
        parse(sql)
    except SqlError as exc:
        raise Invalid(f"{path}.sql", Term(parse_error(exc, sql)), sql) from None
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
        if ":" not in item:
            raise Invalid(None, f"should be of pattern {{type}}:{{name}}, but got: {item}")
        return item
    if not isinstance(item, Mapping):
        raise Invalid(path, "neither an action's id nor republish nor console", item)
    if item.get("function") == "console":
        return {"function": "console"}
    if item.get("function") != "republish":
        raise Invalid(None, Term("unknown_action_function"))
    try:
        args = _checked(_REPUBLISH, item.get("args", {}), f"{path}.args")
    except Invalid as exc:
        exc.more["matched_type"] = Term('"rule_engine:builtin_action_republish"')
        raise
    return {"args": dict(args), "function": "republish"}


def _checked(shape: _Shape, conf: object, path: str, more: tuple[str, ...] = ()) -> Settings:
    if not isinstance(conf, Mapping):
        raise Invalid(path, expected("map"), conf)
    unknown_fields(conf, (*shape, *more), path)
    checked = Settings()
    for key, kind in shape.items():
        here = f"{path}.{key}"
        if not isinstance(kind, _Value):
            if key == "parameters" and conf.get(key) is None:
                raise Invalid(here, "required_field")
            checked[key] = dict(_checked(kind, conf.get(key, {}), here))
        elif conf.get(key) is not None:
            try:
                checked[key] = kind.check(conf[key])
            except _NotIt as exc:
                raise Invalid(here, exc.reason, conf[key]) from None
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
