"""flows.toml → Flows, with every fault at once."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from service.errors import ConfigError, Fault
from service.flows.check import check
from service.flows.check_flow import check_models
from service.flows.check_mcp import check_mcp, check_name
from service.flows.check_tool import check_variables
from service.flows.cures import belongs
from service.flows.flow import Flow, Flows, McpServer, Provider
from service.flows.keys import keys_of
from service.flows.lines import Path, scan
from service.flows.model_names import DEFAULT_PROVIDER, ModelRef
from service.flows.report import Report
from service.flows.tables import FLOW_NAME, File, FlowKeys, McpKeys, Price, ProviderKeys
from service.flows.toml_faults import mended
from service.flows.tool import Confirm
from service.mqtt.topics import TopicPattern

T = TypeVar("T")
EVERY = "emqx-gpt/every"
LARGEST = 4 << 20  # bytes; what is larger is no flows file


def load(
    path: str | FilePath,
    *,
    model: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Flows:
    """Read the file; raises ConfigError with all faults. `model` is OPENAI_MODEL; `environ` has
    the variables that the file names, where they count."""
    return sound(read(path), str(path), model, environ)


def sound(
    text: str,
    source: str,
    model: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Flows:
    """The flows of a file's text; raises ConfigError with all faults."""
    flows, faults = parse(text, source, model, environ)
    errors = tuple(fault for fault in faults if not fault.warning)
    if flows is None:
        more = f" (and {len(errors) - 1} more: emqx-gpt check)" if len(errors) > 1 else ""
        raise ConfigError(f"{errors[0]}{more}", errors)
    return flows


def read(path: str | FilePath) -> str:
    """The file's text; raises ConfigError in one line if there is none."""
    try:
        with FilePath(path).open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) <= LARGEST:
            return content.decode("utf-8-sig")  # Windows editors put a BOM
        more = f"has more than {LARGEST >> 20} MB"
        fault = Fault(str(path), more, hint="is it another file? FLOWS names it")
    except FileNotFoundError:
        hint = "write one with emqx-gpt init (docs/flows.md), or point FLOWS at it"
        fault = Fault(str(path), "there is no such file", hint=hint)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fault = Fault(str(path), "is not UTF-8", line, "save it as UTF-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "FLOWS names the file"
        if isinstance(error, PermissionError):  # a checkout with umask 077, and a container
            who = f"user {os.geteuid()}" if hasattr(os, "geteuid") else "this user"
            hint = f"let {who} read it: chmod a+r {FilePath(path).name}"
        fault = Fault(str(path), f"can't be read: {reason}", hint=hint)
    raise ConfigError(str(fault), (fault,))


def parse(
    text: str,
    source: str = "flows.toml",
    model: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Flows | None, list[Fault]]:
    """Flows and all faults, warnings included; no Flows if one of them is more than that."""
    text = text.removeprefix("\ufeff")
    broken: list[Fault] = []
    try:
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            readable, broken = mended(text, source)
            if readable is None:
                return None, broken
            data, text = tomllib.loads(readable), readable
        lines = scan(text)
    except RecursionError:
        return None, [Fault(source, "no valid TOML: nested too deeply")]
    report = Report(source, lines)
    flows = _flows(data, report, source, model)
    if environ is not None:
        check_variables(flows, environ, report)
    faults = sorted(broken + report.faults, key=lambda fault: fault.line or 0)
    return (None if any(not fault.warning for fault in faults) else flows), faults


def _flows(data: dict[str, Any], report: Report, source: str, model: str | None) -> Flows:
    known = keys_of(File)
    stray = sorted(data.keys() - known.keys())
    for name in stray:
        report.add((name,), "unknown key", belongs(name, data))
    tables = {name: _table(data, name, report) for name, key in known.items() if key.table}
    providers = _providers(tables["providers"], report)
    prices = {
        name: price
        for name, table in tables["prices"].items()
        if (price := _valid(Price, ("prices", name), table, report)[0])
    }
    servers = _servers(tables["mcp"], report)
    defaults = _valid(FlowKeys, ("defaults",), tables["defaults"], report)[1]
    override = _override(model, providers) if model else None
    flows: dict[str, Flow] = {}
    for name, table in tables["flows"].items():
        flow = _flow(name, table, defaults, override, report)
        if flow is None:
            continue
        flow = _asking(flow, servers)
        check_models(flow, providers, report)
        if override is not None and "model" not in table:
            flow = replace(flow, model=override)
        flows[name] = flow
    if override is not None:
        check_models(Flow(model=override), providers, report, ("OPENAI_MODEL",))
    if not data.get("flows") and not stray:  # else that is told: a flow in a wrong table
        report.add((), "there is no flow in it", 'start with [flows.chat] and its "request"')
    made = Flows(
        MappingProxyType(flows),
        MappingProxyType(providers),
        MappingProxyType(prices),
        source,
        _price_list(data, report),
        MappingProxyType(servers),
    )
    check(made, report)
    check_mcp(made, tables["mcp"].keys(), report)
    return made


def _price_list(data: dict[str, Any], report: Report) -> str | None:
    """The one key of the file that is no table."""
    said = {"price_list": data["price_list"]} if "price_list" in data else {}
    found = _valid(File, (), said, report)[0]
    if found is None or found.price_list is None:
        return None
    if importlib.util.find_spec("genai_prices") is None:
        hint = "pip install 'emqx-gpt[prices]'"
        report.add(("price_list",), f"needs the package {found.price_list}", hint)
    return found.price_list


def _table(data: dict[str, Any], name: str, report: Report) -> dict[str, Any]:
    table = data.get(name, {})
    if isinstance(table, dict):
        return table
    hint = f"write [{name}.NAME] for each" if keys_of(File)[name].many else f"write [{name}]"
    report.add((name,), "must be a table", hint)
    return {}


def _providers(tables: dict[str, Any], report: Report) -> dict[str, Provider]:
    providers = {DEFAULT_PROVIDER: Provider(name=DEFAULT_PROVIDER)}
    for name, table in tables.items():
        keys, good = _valid(ProviderKeys, ("providers", name), table, report)
        if keys is None or good != table:
            continue
        providers[name] = Provider(**_values(keys), name=name)
        if keys.base_url is None and name != DEFAULT_PROVIDER:
            hint = 'where is it? base_url = "http://localhost:11434/v1"'
            report.add(("providers", name), "base_url is missing", hint)
    return providers


def _servers(tables: dict[str, Any], report: Report) -> dict[str, McpServer]:
    servers = {}
    for name, table in tables.items():
        path: Path = ("mcp", name)
        keys, good = _valid(McpKeys, path, table, report)
        if check_name(name, report) and keys is not None and good == table:
            line = report.line((*path, "token_env"))
            servers[name] = McpServer(**_values(keys), name=name, line=line)
    return servers


def _asking(flow: Flow, servers: Mapping[str, McpServer]) -> Flow:
    """The flow with what its servers say of who is asked first."""
    tables = {name: servers[name].confirm for name in flow.tools_from if name in servers}
    asks = {name: one for name, one in tables.items() if isinstance(one, Confirm)}
    return replace(flow, asks=asks) if asks else flow


def _override(text: str, providers: dict[str, Provider]) -> ModelRef:
    """OPENAI_MODEL: a known provider counts as one, any other slash is part of the name."""
    ref = ModelRef.parse(text)
    return ref if ref.provider in providers else ModelRef(DEFAULT_PROVIDER, text)


def _flow(
    name: str, table: Any, defaults: dict[str, Any], override: ModelRef | None, report: Report
) -> Flow | None:
    """The flow of a table; None where a fault leaves nothing to check."""
    base: Path = ("flows", name)
    if not re.fullmatch(FLOW_NAME, name):
        hint = "a letter, then letters, digits, _ and -: it names a rule in EMQX"
        report.add(base, "can't be a flow's name", hint)
        return None
    if override is not None:
        defaults = {key: value for key, value in defaults.items() if key != "model"}
    merged = {**defaults, **table} if isinstance(table, dict) else table
    keys, good = _valid(FlowKeys, base, merged, report)
    if keys is None or ({"request", "every"} & merged.keys()) - good.keys():
        return None
    if keys.every is not None and not keys.request:
        # No message comes there: it is what its requests are called.
        keys = replace(keys, request=(TopicPattern.parse(f"{EVERY}/{name}"),))
    elif keys.every is not None:
        hint = "make a flow of its own for what is asked by the clock"
        report.add((*base, "every"), "can't go with request", hint)
    if not keys.request:
        hint = 'which topics does it answer? request = "chatgpt/request/${user}"'
        report.add(base, "request is missing", hint)
        return None
    values = _values(keys)
    for declared in keys_of(FlowKeys).values():
        if declared.default_from and values[declared.name] is None:
            values[declared.name] = values[declared.default_from]
    return Flow(**values, name=name)


def _valid(
    model: type[T], path: Path, table: Any, report: Report
) -> tuple[T | None, dict[str, Any]]:
    """What `table` says and its good keys: one bad key doesn't hide the next fault."""
    kind: Any = model
    adapter: TypeAdapter[T] = _adapter(kind)
    try:
        return adapter.validate_python(table), table
    except ValidationError as error:
        errors = error.errors(include_url=False)
    report.pydantic(path, errors)
    if not isinstance(table, dict):
        return None, {}
    bad = {fault["loc"][0] for fault in errors if fault["loc"]}
    good = {key: value for key, value in table.items() if key not in bad}
    try:
        return adapter.validate_python(good), good
    except ValidationError:
        return None, good  # a key that has to be there is bad


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _values(table: Any) -> dict[str, Any]:
    return {item.name: getattr(table, item.name) for item in fields(table)}
