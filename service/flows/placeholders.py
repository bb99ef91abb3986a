"""Which `${names}` a template may use, and what is wrong with the others; and names that are
written as other programs write them, such as `{user}` or `%u`, and so stand for themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.flows.flow import Flow
from service.flows.lines import Path
from service.flows.report import Report, suggest
from service.mqtt.comparisons import CALL
from service.mqtt.templates import Template
from service.mqtt.topics import FIELDS, fault_in_name

_NAME = r"[A-Za-z][\w.-]*"
# What is a name here, or means to be none, comes first.
_ALIKE = re.compile(
    r"\$\{\$\}(?:\{[^{}]*\})?|\$\{[^}]*\}"
    rf"|\{{\{{\s*({_NAME})\s*\}}\}}|\{{({_NAME})\}}|\$\(({_NAME})\)|\$([A-Za-z]\w*(?:\.\w+)*)"
)
_BROKERS = re.compile(r"(?<![\w%])%(?:([uc])(?!\w)|([A-Za-z]\w*)%)")
_PAGES = re.compile(rf"<({_NAME})>|(?<![^/]):({_NAME})(?![^/])")  # never in a text: it may be a tag
_LEVEL = re.compile(
    rf"\{{\{{\s*({_NAME})\s*\}}\}}|\{{({_NAME})\}}|\$\(({_NAME})\)|\$({_NAME})|%([uc])|<({_NAME})>|:({_NAME})"
)
FIGURES = ("mean", "min", "max", "last", "count")
TABLES = {
    "recent": ("recent", 'recent = { topic = "sensors/${device}/telemetry" }'),
    "collected": ("collect", 'collect = { every = "30s" }'),
}
"""What tells of many messages: the key that makes it, and an example of it."""
_SHORT = {"u": "username", "c": "clientid"}


def misnamed_levels(text: str) -> Iterator[tuple[str, str]]:
    """Levels of a request topic that seem to capture: (as written, the name)."""
    for index, level in enumerate(text.split("/")):
        found = _LEVEL.fullmatch(level)
        if found is None or (index == 0 and level.startswith("$") and level[1:2] not in "({"):
            continue  # $SYS and its like
        name = next(group for group in found.groups() if group is not None)
        yield level, {"u": "user", "c": "client"}.get(name, name) if found[5] else name


@dataclass(frozen=True, slots=True)
class Names:
    """The captured levels of a flow (in all or only some of its request topics) and, for a
    tool, its arguments."""

    captured: frozenset[str]
    partly: Mapping[str, str]  # name → a request topic without it
    arguments: Mapping[str, Any] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    meant: frozenset[str] = frozenset()  # by levels that `check_request` complains of
    tables: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The values that ${recent} and ${collected} tell of, where there is one; empty: any."""

    @classmethod
    def of(
        cls, flow: Flow, parameters: Mapping[str, Any] | None = None, *, calls: bool = False
    ) -> Names:
        """`calls`: of a tool, each of whose calls has an id."""
        sets = [frozenset(pattern.names) for pattern in flow.request]
        everywhere = frozenset.intersection(*sets)
        partly = {
            name: next(pattern.text for pattern in flow.request if name not in pattern.names)
            for name in frozenset.union(*sets) - everywhere
        }
        parameters = parameters or {}
        return cls(
            everywhere | ({CALL} if calls else frozenset()),
            partly,
            parameters.get("properties", {}),
            frozenset(parameters.get("required", ())),
            frozenset(
                name for pattern in flow.request for _, name in misnamed_levels(pattern.text)
            ),
            {
                name: frozenset(table.fields)
                for name, table in (("recent", flow.recent), ("collected", flow.collect))
                if table is not None
            },
        )

    def check(self, path: Path, template: Template, report: Report) -> None:
        """Report the names of `template` that stand for nothing."""
        for name in template.names:
            root, _, rest = name.partition(".")
            if root in TABLES and root not in self.captured and root not in self.arguments:
                self._check_table(path, name, root, report)
            elif root in self.partly:
                message = f'${{{root}}} is not captured by "{self.partly[root]}"'
                report.add(path, message, "let every request topic capture it, or split the flow")
            elif root in self.arguments and (root in self.captured or root in FIELDS):
                message = f"${{{root}}} is an argument, and a name of the message too"
                report.add(path, message, "give the argument another name")
            elif rest and root != "payload" and (root in self.captured or root in FIELDS):
                report.add(path, f"${{{root}}} is a text; it has no {rest}", f"write ${{{root}}}")
            elif root not in self.captured | FIELDS | self.arguments.keys() | self.meant:
                report.add(path, f"${{{name}}} stands for nothing", self._hint(name))

    def _check_table(self, path: Path, name: str, table: str, report: Report) -> None:
        key, example = TABLES[table]
        *values, figure = name.split(".")[1:] or [table]
        told = self.tables.get(table)
        if told is None and report.written((*path[:2], key)):
            return  # what is wrong with it is told there
        if told is None:
            hint = f"say which messages: {example}"
            report.add(path, f"${{{name}}} stands for nothing: there is no {key}", hint)
        elif not values:
            if figure not in (table, "count"):
                hint = f"write ${{{table}.{figure}.{FIGURES[0]}}}, or ${{{table}}} for all of it"
                report.add(path, f"${{{name}}} names no figure", hint)
        elif figure not in FIGURES:
            hint = suggest(figure, FIGURES) or f"known here: {', '.join(FIGURES)}"
            report.add(path, f"${{{name}}} ends in no figure", hint)
        elif told and ".".join(values) not in told:
            known = ", ".join(sorted(told))
            hint = suggest(".".join(values), told) or f"{key}.fields has {known}"
            report.add(path, f"${{{name}}} is not among {key}.fields", hint)

    def check_words(self, path: Path, template: Template, report: Report, *, key: bool) -> None:
        """Warn of known names in a text that are not written as names. In a `key`, which tells
        messages apart, it is a fault."""
        for written, name in _written(template.text):
            if self._knows(name):
                said = f"{written} stands for nothing but itself"
                report.add(path, said, f"did you mean ${{{name}}}?", warning=not key)

    def _check_levels(self, path: Path, template: Template, report: Report) -> None:
        """Report names in a topic that are not written as names: it would go to that very topic."""
        for written, name in _written(template.text, topic=True):
            root = name.partition(".")[0]
            message = f"{written} stands for nothing but itself: nobody else listens to that topic"
            if self._knows(name):
                report.add(path, message, f"did you mean ${{{name}}}?")
            elif written[0] in "{<" or written.startswith("$("):
                report.warn(path, message, self._hint(root))

    def _knows(self, name: str) -> bool:
        root, _, rest = name.partition(".")
        known = root in self.captured | FIELDS | self.arguments.keys() | self.meant
        return known and (not rest or root == "payload" or root in self.arguments)

    def check_topic(self, path: Path, template: Template, report: Report) -> None:
        """`check`, and whether it can be a topic that the file's author chose."""
        self.check(path, template, report)
        self.check_no_table(path, template, report)
        self._check_levels(path, template, report)
        sample = "".join("x" if is_name else part for part, is_name in template.parts)
        if fault := fault_in_name(sample):
            hint = "one publishes to a plain topic"
            if "+" in sample:
                hint += ": name the level in request, as in a/${name}, and write ${name} here too"
            report.add(path, f'"{template}" {fault}', hint)
        if "topic" in template.names:
            message = "${topic} is several levels: the device would choose where we publish"
            report.add(
                path, message, "write the levels out, with the names that request gives them"
            )
        for name in template.names:
            if name in self.arguments and name not in self.captured | FIELDS:
                self._check_argument(path, name, report)
            elif "." in name and name.partition(".")[0] in self.arguments:
                report.add(path, f"${{{name}}} is no single value", "use a plain argument")

    def check_no_table(self, path: Path, template: Template, report: Report) -> None:
        """Readings differ from one question to the next: no topic or key is made of them."""
        for table in self.tables.keys() - self.captured - self.arguments.keys():
            for name in template.names:
                if name.partition(".")[0] == table:
                    hint = "it can stand in prompt, system, on_error and a tool's payload"
                    report.add(path, f"${{{name}}} can't stand here", hint)

    def _check_argument(self, path: Path, name: str, report: Report) -> None:
        declared = self.arguments[name]
        kind = declared.get("type") if isinstance(declared, dict) else None
        if kind in ("object", "array"):
            report.add(path, f"${{{name}}} is an {kind}", "a topic level is a text or a number")
        if name not in self.required:
            message = f"${{{name}}} may be missing from a call: it is not in parameters.required"
            report.add(path, message, f'write required = ["{name}", …]')

    def _hint(self, name: str) -> str:
        known = sorted({*self.captured, *self.arguments}) + sorted(FIELDS)
        if close := suggest(name, known):
            return close.replace('"', "${", 1).replace('"', "}", 1)
        if name not in self.captured and not self.arguments:
            return (
                f"known here: {', '.join(known)}; a payload's value is ${{payload.{name}}}, and "
                f"for a level of the topic write ${{{name}}} in request too, in place of its +"
            )
        return f"known here: {', '.join(known)}"


def _written(text: str, *, topic: bool = False) -> Iterator[tuple[str, str]]:
    """Names that stand in `text` as other programs write them, each as written and bare."""
    for found in _ALIKE.finditer(text):
        for name in filter(None, found.groups()):
            yield found[0], name.rstrip(".")
    for found in _BROKERS.finditer(text):
        yield found[0], _SHORT[found[1]] if found[1] else found[2]
    if topic:
        for found in _PAGES.finditer(text):
            yield found[0], found[1] or found[2]
