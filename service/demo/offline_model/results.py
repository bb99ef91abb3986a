"""What came of the tools' calls, in a sentence that says no more than is known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from service.demo.offline_model import vocabulary

_FAILED = re.compile(
    r"\b(?:error|failed|failure|refused|timed out|not found|no answer)\b|失败|错误", re.IGNORECASE
)
_VERBS = ("set", "get", "read", "query", "check", "list", "show", "control", "switch", "turn")
_READS = ("get", "read", "query", "check", "list", "show")
# What stands before the words of a device, and what they are.
_TOLD = re.compile(
    r"(?P<before>.*?)\b(?P<what>the device answered|the device says|retained message) "
    r"\(data, no instructions\): (?P<data>.*)",
    re.DOTALL,
)
_NO_ANSWER = re.compile(r"unknown: no answer within ([\d.]+ ?\w+)")
_REASONS = (("the person said no", "said_no"), ("nobody confirmed it in time", "silence"),
            ("it was confirmed too long ago", "silence"))  # fmt: skip
_ID = "call_id"


class Outcome:
    """The results of one request's calls, gathered. `says`: the sentences of its language."""

    ORDER = ("done", "confirmed", "answered", "read", "refused", "unknown", "failed")

    def __init__(self, says: Mapping[str, str]) -> None:
        self._says = says
        self._groups: dict[str, list[str]] = {name: [] for name in self.ORDER}

    def add(self, name: str, arguments: str, result: str) -> None:
        """A call and what the model was told of it."""
        given = _object(arguments)
        group, item = self._read(name, given, self._described(name, given), result)
        self._groups[group].append(item)

    def text(self) -> str:
        """All of it, kind by kind."""
        groups = self._groups.items()
        return "".join(self._say(name, "; ".join(items)) for name, items in groups if items)

    def _say(self, key: str, *values: object) -> str:
        return self._says[key].format(*values)

    def _read(self, name: str, given: Mapping[str, Any], what: str, result: str) -> tuple[str, str]:
        """Which kind of outcome it is, and its words."""
        if result.startswith("refused:"):
            said = result.removeprefix("refused:").removesuffix("; nothing was done").strip()
            key = next((key for text, key in _REASONS if text in said), None)
            return "refused", f"{what} ({self._says[key] if key else vocabulary.shorten(said)})"
        if hit := _NO_ANSWER.match(result):
            return "unknown", f"{what} ({self._say('no_answer', hit[1])})"
        if result.startswith("unknown:"):
            return (
                "unknown",
                f"{what} ({vocabulary.shorten(result.removeprefix('unknown:').strip())})",
            )
        if told := _TOLD.match(result):
            return self._told(name, given, what, told)
        if result.startswith("error: it did not work"):
            return "failed", f"{what} ({self._says['silent']})"
        if result == "sent, but no device is listening":
            return "failed", f"{what} ({self._says['nobody']})"
        short = vocabulary.shorten(result)
        if is_failure(result):
            return "failed", f"{what} ({short})"
        if vocabulary.split(name)[0] in _READS:
            return "read", f"{what}: {short}"
        return "done", what if short in ("", "done") else f"{what} ({short})"

    def _told(
        self, name: str, given: Mapping[str, Any], what: str, told: re.Match[str]
    ) -> tuple[str, str]:
        """A device said something: does it agree with what was wanted?"""
        data = self._data(given, told["data"])
        if told["what"] == "retained message":
            return "read", f"{what}: {vocabulary.shorten(told['data'])}"
        with_it = f"{what} ({data})" if data else what
        if told["before"].startswith("error:") or _against(name, given, told["data"]):
            return (
                "failed",
                f"{what} ({self._say('device', data or vocabulary.shorten(told['data']))})",
            )
        checked = told["before"].startswith("done, and checked")
        return ("confirmed" if checked or _agrees(name, given, told["data"]) else "answered"), (
            with_it
        )

    def _data(self, given: Mapping[str, Any], data: str) -> str:
        """What a device said beyond what was asked for, as words."""
        found = _decoded(data)
        if not isinstance(found, dict):
            return vocabulary.shorten(data)
        news = {key: each for key, each in found.items() if key != _ID and given.get(key) != each}
        return vocabulary.shorten(
            "; ".join(f"{key} {self._shown(each)}" for key, each in news.items())
        )

    def _shown(self, value: Any) -> str:
        if isinstance(value, bool):
            return self._says["on" if value else "off"]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def _described(self, name: str, given: Mapping[str, Any]) -> str:
        """A call in words: set_light {"room": "kitchen", "on": true} → kitchen light on."""
        head = [word for word in vocabulary.split(name) if word not in _VERBS] or [name]
        details = []
        for key, value in given.items():
            if isinstance(value, str) and vocabulary.places(value):
                head.insert(0, value)
            elif isinstance(value, str) and key in head:  # unlock_door, door: front
                head.insert(head.index(key), value)
            elif isinstance(value, bool):
                label = "" if key in ("on", "power", "enabled") else f"{key} "
                head.append(label + self._says["on" if value else "off"])
            else:
                details.append(f"{key.replace('_', ' ')} {self._shown(value)}")
        return ", ".join([" ".join(head), *details])


def is_failure(result: str) -> bool:
    """Whether a tool's result, or what a device said, tells that it did not work."""
    told = _decoded(result)
    if isinstance(told, dict):
        return bool(told.get("error")) or told.get("ok") is False
    return bool(_FAILED.search(told if isinstance(told, str) else result))


def _against(name: str, given: Mapping[str, Any], data: str) -> bool:
    """Whether a device says something else than what was wanted."""
    found = _decoded(data)
    if is_failure(data):
        return True
    if isinstance(found, dict) and any(
        key in given and given[key] != each for key, each in found.items()
    ):
        return True
    return vocabulary.contrary(name, _state(given, data))


def _agrees(name: str, given: Mapping[str, Any], data: str) -> bool:
    """Whether a device says that it is as wanted."""
    found = _decoded(data)
    if vocabulary.doings(name) & vocabulary.doings(_state(given, data)):
        return True
    wanted = {key: each for key, each in given.items() if not isinstance(each, str)}
    if not isinstance(found, dict) or not wanted:
        return False
    return all(found.get(key) == each for key, each in wanted.items())


def _state(given: Mapping[str, Any], data: str) -> str:
    """The words in which a device says how it is."""
    found = _decoded(data)
    if not isinstance(found, dict):
        return data
    return " ; ".join(
        each for key, each in found.items() if isinstance(each, str) and key not in (_ID, *given)
    )


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _object(text: str) -> dict[str, Any]:
    found = _decoded(text)
    return found if isinstance(found, dict) else {}
