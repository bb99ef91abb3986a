"""From validated keys to the frozen values: parse topics, templates, models and regexes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from service.flows.flow import DEFAULT_PROVIDER, Flow, History, ModelRef, Price, Provider, Tool
from service.flows.keys import FlowKeys, HistoryKeys, PriceKeys, ProviderKeys, ToolKeys
from service.flows.lines import Path
from service.flows.models import INSTEAD, end_of_life
from service.flows.report import Report, suggest
from service.mqtt.templates import Template, TemplateError
from service.mqtt.topics import TopicError, TopicPattern, fault_in_filter

_TEMPLATES = (
    *("reply", "error", "stream", "status", "conversation"),
    *("prompt", "dedupe", "system", "on_error"),
)
_AS_THEY_ARE = (
    *("where", "input", "temperature", "max_tokens", "timeout", "params", "format", "qos"),
    *("retain", "expiry", "deadline", "cooldown", "limit", "client_limit", "daily_tokens"),
)
_LONGEST_REGEX = 500
# (a+)+ and the like: a repeated group that itself repeats can take for ever on one message.
_NESTED_REPEAT = re.compile(r"(?<!\\)[+*}][^()\[\]\\|]*\)(?:[+*]|\{\d+,\d*\})")


class Builder:
    """Makes flows from their keys; what can't be made is reported and left out."""

    def __init__(self, report: Report, providers: Mapping[str, Provider]) -> None:
        self._report = report
        self._providers = providers

    def flow(self, name: str, keys: Mapping[str, Any]) -> Flow | None:
        """The flow `name`, or None if a fault of its topics leaves nothing to check.

        `keys` are the keys that are set, `defaults` included, as FlowKeys has them.
        """
        base: Path = ("flows", name)
        request = self._request(base, keys.get("request"))
        if request is None:
            return None
        values = {key: keys[key] for key in _AS_THEY_ARE if key in keys}
        for key in _TEMPLATES:
            if key in keys and (template := self._template((*base, key), keys[key])):
                values[key] = template
        for key in ("strip", "require"):
            if key in keys and (regex := self._regex((*base, key), keys[key])):
                values[key] = regex
        if keys.get("model") is not None:
            values["model"] = self._model((*base, "model"), keys["model"])
        if "fallback" in keys:
            path = (*base, "fallback")
            values["fallback"] = tuple(self._model(path, model) for model in keys["fallback"])
        if "history" in keys:
            values["history"] = _history(keys["history"])
        if "schema_" in keys:
            values["schema"] = keys["schema_"]
        if "tools" in keys:
            tools = enumerate(keys["tools"])
            values["tools"] = tuple(self._tool((*base, "tools", at), tool) for at, tool in tools)
        if "allow_response_topics" in keys:
            values["allow_response_topics"] = self._filters(
                (*base, "allow_response_topics"), keys["allow_response_topics"]
            )
        values.setdefault("error", values.get("reply"))
        return Flow(name=name, request=request, **values)

    def _request(
        self, base: Path, texts: tuple[str, ...] | None
    ) -> tuple[TopicPattern, ...] | None:
        if texts is None:
            hint = 'which topics does it answer? request = "chatgpt/request/${user}"'
            self._report.add(base, "request is missing", hint)
            return None
        patterns = []
        for text in texts:
            try:
                patterns.append(TopicPattern.parse(text))
            except TopicError as error:
                self._report.add((*base, "request"), error.message, error.hint)
        return tuple(patterns) if len(patterns) == len(texts) else None

    def _template(self, path: Path, text: str) -> Template | None:
        try:
            return Template.parse(text)
        except TemplateError as error:
            self._report.add(path, error.message, error.hint)
            return None

    def _regex(self, path: Path, text: str) -> re.Pattern[str] | None:
        if len(text) > _LONGEST_REGEX:
            self._report.add(path, f"is longer than {_LONGEST_REGEX} characters", "say less")
            return None
        if _NESTED_REPEAT.search(text):
            self._report.add(
                path,
                "repeats a group that repeats itself; one message could keep it busy for ever",
                "drop one of the two repeats: (a+)+ finds what a+ finds",
            )
            return None
        try:
            # `.` takes line ends too: "the wake word and all before it" may span lines.
            return re.compile(text, re.DOTALL)
        except (re.error, RecursionError, OverflowError) as error:
            self._report.add(
                path,
                f"is no regular expression: {error}",
                "in '…' quotes TOML leaves backslashes alone",
            )
            return None

    def _model(self, path: Path, text: str) -> ModelRef:
        provider, slash, model = text.partition("/")
        if not slash:
            ref = ModelRef(DEFAULT_PROVIDER, text)
            self.note_end_of_life(path, ref)
            return ref
        if provider not in self._providers:
            others = self._providers.keys() - {DEFAULT_PROVIDER}
            hint = suggest(provider, others) or (
                f"add [providers.{provider}], or write "
                f'"{DEFAULT_PROVIDER}/{text}" if the default server calls it so'
            )
            self._report.add(path, f'unknown provider "{provider}"', hint)
        ref = ModelRef(provider, model)
        self.note_end_of_life(path, ref)
        return ref

    def note_end_of_life(self, path: Path, ref: ModelRef) -> None:
        """Warn of a model that OpenAI shuts down."""
        if day := end_of_life(ref, self._providers.get(ref.provider)):
            self._report.warn(path, f"OpenAI's last day for {ref.model} is {day}", INSTEAD)

    def _tool(self, path: Path, keys: ToolKeys) -> Tool:
        templates = {
            name: self._template((*path, name), text)
            for name in ("topic", "payload", "read")
            if (text := getattr(keys, name)) is not None
        }
        return Tool(
            name=keys.name,
            description=keys.description,
            # OpenAI wants the type; it can only be this one.
            parameters={"type": "object", **(keys.parameters or {"properties": {}})},
            at_most_once=keys.at_most_once,
            qos=keys.qos,
            retain=keys.retain,
            **templates,
        )

    def _filters(self, path: Path, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            if fault := fault_in_filter(text):
                self._report.add(path, f'"{text}" {fault}', 'a filter is such as "replies/#"')
        return tuple(text for text in texts if not fault_in_filter(text))


def set_keys(keys: FlowKeys) -> dict[str, Any]:
    """The keys that are written, by field name."""
    return {name: getattr(keys, name) for name in keys.model_fields_set}


def model_override(text: str, providers: Mapping[str, Provider]) -> ModelRef:
    """OPENAI_MODEL: a known provider counts as one, any other slash is part of the name."""
    provider, slash, model = text.partition("/")
    if slash and provider in providers:
        return ModelRef(provider, model)
    return ModelRef(DEFAULT_PROVIDER, text)


def provider(name: str, keys: ProviderKeys) -> Provider:
    """Compatible servers know `max_tokens`; only OpenAI's own wants the long name."""
    usual = "max_completion_tokens" if name == DEFAULT_PROVIDER else "max_tokens"
    wanted = keys.max_tokens_param
    return Provider(name, keys.base_url, keys.api_key_env, wanted or usual)  # type: ignore[arg-type]


def price(keys: PriceKeys) -> Price:
    return Price(keys.input, keys.output)


def _history(keys: HistoryKeys) -> History:
    return History(keys.messages, keys.tokens, keys.ttl, keys.reset or ())
