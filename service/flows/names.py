"""Which `${names}` a template may use, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.flows.flow import Flow
from service.flows.lines import Path
from service.flows.report import Report, suggest
from service.mqtt.templates import Template
from service.mqtt.topics import FIELDS, fault_in_name


@dataclass(frozen=True, slots=True)
class Names:
    """The captured levels of a flow (in all or only some of its request topics) and, for a
    tool, its arguments."""

    captured: frozenset[str]
    partly: Mapping[str, str]  # name → a request topic without it
    arguments: Mapping[str, Any] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    @classmethod
    def of(cls, flow: Flow, parameters: Mapping[str, Any] | None = None) -> Names:
        sets = [frozenset(pattern.names) for pattern in flow.request]
        everywhere = frozenset.intersection(*sets)
        partly = {
            name: next(pattern.text for pattern in flow.request if name not in pattern.names)
            for name in frozenset.union(*sets) - everywhere
        }
        parameters = parameters or {}
        return cls(
            everywhere,
            partly,
            parameters.get("properties", {}),
            frozenset(parameters.get("required", ())),
        )

    def check(self, path: Path, template: Template, report: Report) -> None:
        """Report the names of `template` that stand for nothing."""
        for name in template.names:
            root, _, rest = name.partition(".")
            if root in self.partly:
                message = f'${{{root}}} is not captured by "{self.partly[root]}"'
                report.add(path, message, "let every request topic capture it, or split the flow")
            elif root in self.arguments and (root in self.captured or root in FIELDS):
                message = f"${{{root}}} is an argument, and a name of the message too"
                report.add(path, message, "give the argument another name")
            elif rest and root != "payload" and (root in self.captured or root in FIELDS):
                report.add(path, f"${{{root}}} is a text; it has no {rest}", f"write ${{{root}}}")
            elif root not in self.captured | FIELDS | self.arguments.keys():
                report.add(path, f"${{{name}}} stands for nothing", self._hint(name))

    def check_topic(self, path: Path, template: Template, report: Report) -> None:
        """`check`, and whether it can be a topic that the file's author chose."""
        self.check(path, template, report)
        sample = "".join("x" if is_name else part for part, is_name in template.parts)
        if fault := fault_in_name(sample):
            report.add(path, f'"{template}" {fault}', "one publishes to a plain topic")
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
            return f"known here: {', '.join(known)}; a payload's value is ${{payload.{name}}}"
        return f"known here: {', '.join(known)}"
