"""flows.toml → Flows, with every fault at once."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import ConfigError, Fault
from service.flows.build import Builder, model_override, price, provider, set_keys
from service.flows.check import check
from service.flows.flow import DEFAULT_PROVIDER, Flow, Flows
from service.flows.keys import FLOW_NAME, FileKeys, FlowKeys, PriceKeys, ProviderKeys
from service.flows.lines import Path, scan, syntax_line
from service.flows.report import Report, keys_of, suggest

_M = TypeVar("_M", bound=BaseModel)


def load(path: str | FilePath, *, model: str | None = None) -> Flows:
    """Read the file; raises ConfigError with all faults. `model` is OPENAI_MODEL."""
    flows, faults = parse(read(path), str(path), model)
    errors = tuple(fault for fault in faults if not fault.warning)
    if flows is None:
        more = f" (and {len(errors) - 1} more: emqx-gpt check)" if len(errors) > 1 else ""
        raise ConfigError(f"{errors[0]}{more}", errors)
    return flows


def read(path: str | FilePath) -> str:
    """The file's text; raises ConfigError in one line if there is none."""
    try:
        return FilePath(path).read_bytes().decode("utf-8-sig")  # Windows editors put a BOM
    except FileNotFoundError:
        hint = "write one with emqx-gpt init (docs/flows.md), or point FLOWS at it"
        fault = Fault(str(path), "there is no such file", hint=hint)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fault = Fault(str(path), "is not UTF-8", line, "save it as UTF-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        fault = Fault(str(path), f"can't be read: {reason}", hint="FLOWS names the file")
    raise ConfigError(str(fault), (fault,))


def parse(
    text: str, source: str = "flows.toml", model: str | None = None
) -> tuple[Flows | None, list[Fault]]:
    """Flows and all faults, warnings included; no Flows if one of them is more than that."""
    try:
        data = tomllib.loads(text)
        lines = scan(text)
    except tomllib.TOMLDecodeError as error:
        line = syntax_line(error, text)
        reason = re.sub(r" \(at .*\)$", "", str(error)).lower()
        hint = "quote text, close brackets, write each key once"
        return None, [Fault(source, f"no valid TOML: {reason}", line, hint)]
    except RecursionError:
        return None, [Fault(source, "no valid TOML: nested too deeply")]
    report = Report(source, lines)
    flows = _flows(data, report, source, model)
    faults = report.faults
    return (None if any(not fault.warning for fault in faults) else flows), faults


def _flows(data: dict[str, Any], report: Report, source: str, model: str | None) -> Flows:
    for name in sorted(data.keys() - FileKeys.model_fields.keys()):
        report.add((name,), "unknown key", _belongs(name))
    tables = {name: _table(data, name, report) for name in FileKeys.model_fields}
    providers = {DEFAULT_PROVIDER: provider(DEFAULT_PROVIDER, ProviderKeys())}
    for name, table in tables["providers"].items():
        if server := _valid(ProviderKeys, ("providers", name), table, report):
            providers[name] = provider(name, server)
            if server.base_url is None and name != DEFAULT_PROVIDER:
                hint = 'where is it? base_url = "http://localhost:11434/v1"'
                report.add(("providers", name), "base_url is missing", hint)
    prices = {
        name: price(rate)
        for name, table in tables["prices"].items()
        if (rate := _valid(PriceKeys, ("prices", name), table, report))
    }
    builder = Builder(report, providers)
    override = model_override(model, providers) if model else None
    defaults = _flow_keys(("defaults",), tables["defaults"], report)
    flows: dict[str, Flow] = {}
    for name, table in tables["flows"].items():
        if not re.fullmatch(FLOW_NAME, name):
            hint = "a letter, then letters, digits, _ and -: it names a rule in EMQX"
            report.add(("flows", name), "can't be a flow's name", hint)
            continue
        own = _flow_keys(("flows", name), table, report)
        if not isinstance(table, dict) or ("request" in table and "request" not in own):
            continue  # reported, and nothing can be checked without it
        if override is None or "model" in own:
            flow = builder.flow(name, {**defaults, **own})
        else:
            flow = builder.flow(name, {**defaults, **own, "model": None})
            flow = replace(flow, model=override) if flow else None
        if flow:
            flows[name] = flow
    if override is not None:
        builder.note_end_of_life(("OPENAI_MODEL",), override)
    if not data.get("flows"):
        report.add((), "there is no flow in it", 'start with [flows.chat] and its "request"')
    made = Flows(
        MappingProxyType(flows), MappingProxyType(providers), MappingProxyType(prices), source
    )
    check(made, report)
    return made


def _belongs(name: str) -> str:
    if name in keys_of(FlowKeys):
        return "a flow's key stands under its [flows.NAME], or under [defaults]"
    known = FileKeys.model_fields
    return suggest(name, known) or f"known here: {', '.join(known)}"


def _table(data: dict[str, Any], name: str, report: Report) -> dict[str, Any]:
    table = data.get(name, {})
    if isinstance(table, dict):
        return table
    report.add((name,), "must be a table", f"[{name}]")
    return {}


def _valid(model: type[_M], path: Path, table: object, report: Report) -> _M | None:
    try:
        return model.model_validate(table)
    except ValidationError as error:
        report.pydantic(path, error.errors(include_url=False))
        return None


def _flow_keys(path: Path, table: object, report: Report) -> dict[str, Any]:
    """The keys that are set and valid, so that one bad key doesn't hide the next fault."""
    try:
        return set_keys(FlowKeys.model_validate(table))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    report.pydantic(path, errors)
    bad = {fault["loc"][0] for fault in errors if fault["loc"]}
    if not isinstance(table, dict):
        return {}
    return set_keys(FlowKeys.model_validate({key: table[key] for key in table.keys() - bad}))
