"""Single values out of a text, for `fill`: numbers, words, switches and enums by name.

Each method answers NOTHING when the text does not say the value and it is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from service.demo.offline_model import phrases

Schema = Mapping[str, Any]


class _Nothing:
    """The text says nothing about it: not the same as null."""


NOTHING: Final = _Nothing()

# A dash or dot inside a word or a date ("sensor-7", "2026-11-03") is no sign.
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])(?<![A-Za-z0-9_]-)-?\d{1,15}(?:\.\d{1,9})?(?!\d|\.\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?")
_GAP = re.compile(
    r"[\W_]{0,4}(?:(?:is|at|to|of|was|now|about|around|set|reads?|value)\b\W{0,3}){0,3}"
    r"|\W{0,3}[\u4e00-\u9fff]{0,4}\W{0,3}",
    re.IGNORECASE,
)
_NEXT_TO = re.compile(r"\W{0,3}")
_PERCENT = r"\s*(?:%|percent)"
_UNITS = {
    "temperature": r"\s*(?:°\s?[CF]?|℃|degrees?|celsius|度|C\b)",
    "humidity": _PERCENT,
    "brightness": _PERCENT,
    "volume": _PERCENT,
    "battery": _PERCENT,
    "percent": _PERCENT,
    "level": _PERCENT,
    "moisture": _PERCENT,
    "pressure": r"\s*h?Pa\b",
    "co2": r"\s*ppm\b",
    "illuminance": r"\s*(?:lux|lx)\b",
    "power": r"\s*k?W\b",
    "voltage": r"\s*V\b",
    "speed": r"\s*(?:km/h|m/s)",
}
# Comparatives name a number without saying it.
_IMPLIED = {
    "temperature": (("warmer|hotter|热一点|暖一点", 24), ("cooler|colder|冷一点|凉一点", 20)),
    "brightness": (("brighter|亮一点", 80), (r"\bdim\b|darker|暗一点", 20)),
    "volume": (("louder|大声", 60), ("quieter|softer|小声", 20)),
}
# What a command sets where it must set something and says nothing.
_USUAL = {"temperature": 21, "brightness": 100, "volume": 30}
_FORMATS = {
    "date-time": (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)",
        "1970-01-01T00:00:00Z",
    ),
    "date": (r"\d{4}-\d\d-\d\d", "1970-01-01"),
    "time": (r"\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)", "00:00:00Z"),
    "email": (r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}", "nobody@example.org"),
    "uri": (r"https?://[^\s\"'<>]+", "https://example.org/"),
    "ipv4": (r"\b\d{1,3}(?:\.\d{1,3}){3}\b", "192.0.2.1"),
    "uuid": (
        r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        "00000000-0000-0000-0000-000000000000",
    ),
}
_SWITCH = {"on", "power", "enabled", "active", "switch", "开"}
_PLACE = {"room", "place", "area", "location", "zone", "where", "房间"}
_KIND = {"unit", "quantity", "measure", "measurement", "metric"}
_AMOUNT = {"value", "amount", "reading", "number"}
_PERSON = {"name", "user", "person", "customer"}
_MEDIA = {"media", "song", "title", "query", "genre", "playlist", "track", "artist", "music"}
_PLAYED = re.compile(
    r"\bplay\s+(?:some\s+|me\s+)?(.{1,80}?)(?=\s+(?:in|on|at|with)\s|[,.;!?]|$)"
    r"|(?:播放|放一首|放点)(.{1,40}?)(?=$|[，。！,.!])",
    re.IGNORECASE,
)
_SAID = r"([^,;，；。\"\n{}]{1,120}?)(?=\s+and\s|[,;，；。\"\n{}]|\.?\s*$|\.\s)"
_YES_OR_NO = r"(true|false|yes|no|on|off|1|0|是|否|开|关)(?![A-Za-z0-9])"
_UNSURE = ("unknown", "other", "none", "neutral", "normal", "auto", "medium", "info")
_YES = ("true", "yes", "on", "1", "是", "开")


class Figure(NamedTuple):
    """A number in the text, and where it stands."""

    value: float
    start: int
    end: int


def words(name: str) -> list[str]:
    """A property's or tool's name as words: `targetTemperature` → target, temperature."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9\u4e00-\u9fff]+", spaced) if word]


def bounded(schema: Schema, value: float, whole: bool) -> float | int:
    """The number, moved into the schema's limits and whole where it must be."""
    step = schema.get("multipleOf") or (1 if whole else 0)
    low, high = schema.get("minimum"), schema.get("maximum")
    if (above := schema.get("exclusiveMinimum")) is not None:
        low = above + (step or 0.5)
    if (below := schema.get("exclusiveMaximum")) is not None:
        high = below - (step or 0.5)
    value = value if low is None else max(value, low)
    value = value if high is None else min(value, high)
    if step:
        value = round(value / step) * step
    return int(value) if float(value).is_integer() else value


def cut_to_fit(schema: Schema, text: str) -> str:
    """The text, as long as the schema wants it."""
    length = schema.get("maxLength")
    text = text[:length] if isinstance(length, int) else text
    return text.ljust(int(schema.get("minLength") or 0), ".")


class Reading:
    """A text, read for the properties of one schema."""

    def __init__(self, text: str, names: Mapping[str, bool], before: str, eager: bool) -> None:
        """`names`: all property names of the schema, and which of them take numbers."""
        self.text, self.before, self.eager = text, before, eager
        plain = _DATE.sub(lambda hit: "_" * len(hit[0]), text)
        self.figures = [
            Figure(float(hit[0]), hit.start(), hit.end()) for hit in _NUMBER.finditer(plain)
        ]
        self.taken: set[Figure] = set()
        self.claims = dict(self._claimed(names))

    def _labels(self, name: str) -> Iterator[re.Match[str]]:
        yield from phrases.find_all(" ".join(words(name)), self.text)
        for word in words(name):
            if len(phrases.equivalents(word)) > 1:
                yield from phrases.find_all(word, self.text)

    def _claimed(self, names: Mapping[str, bool]) -> Iterator[tuple[Figure, str]]:
        """Which property each number belongs to, where a label stands right before it.

        "room 5" is a room's name and no temperature, but "the living room to 22" is one.
        """
        labels = {(hit.end(), len(hit[0]), name) for name in names for hit in self._labels(name)}
        for end, _, name in sorted(labels):
            after = next((each for each in self.figures if each.start >= end), None)
            gap = _GAP if names[name] else _NEXT_TO
            if after and gap.fullmatch(self.text, end, after.start):
                yield after, name

    def number(self, schema: Schema, name: str, needed: bool, whole: bool) -> Any:
        """The number with the property's label, else its unit, else any that is left."""
        figure = self._figure(name, needed or self.eager)
        if figure is not None:
            self.taken.add(figure)
            return bounded(schema, figure.value, whole)
        for word in words(name):
            for pattern, value in _IMPLIED.get(word, ()):
                if re.search(pattern, self.text, re.IGNORECASE):
                    return bounded(schema, value, whole)
        if not needed:
            return NOTHING
        usual = next((_USUAL[word] for word in words(name) if word in _USUAL), 0)
        return bounded(schema, schema.get("default") or (usual if self.eager else 0), whole)

    def numbers(self, name: str) -> list[float]:
        """All numbers but those that another property's label claims."""
        return [each.value for each in self.figures if self.claims.get(each, name) == name]

    def _figure(self, name: str, any_left: bool) -> Figure | None:
        free = [each for each in self.figures if each not in self.taken]
        for figure in free:
            if self.claims.get(figure) == name:
                return figure
        free = [each for each in free if each not in self.claims]
        units = [_UNITS[word] for word in words(name) if word in _UNITS]
        for figure in free:
            if any(re.compile(unit, re.I).match(self.text, figure.end) for unit in units):
                return figure
        if set(words(name)) & _AMOUNT:
            free.sort(key=lambda each: phrases.unit_at(self.text, each.end) is None)
        return free[0] if free and any_left else None

    def enum(self, options: Sequence[Any], needed: bool) -> Any:
        """The option that the text names first; where it is needed also one named before."""
        switch = {"on", "off"} & {each.lower() for each in options if isinstance(each, str)}
        if switch and (state := phrases.on_off(self.text)) is not None:
            for option in options:
                if str(option).lower() == ("on" if state else "off"):
                    return option
        said = self._options(options, self.text)
        if said:
            return said[0]
        if not needed:
            return NOTHING
        earlier = self._options(options, self.before, last=True)
        if earlier:
            return earlier[-1]
        unsure = (each for each in options if each is None or str(each).lower() in _UNSURE)
        return next(unsure, options[0])

    def all_options(self, options: Sequence[Any]) -> list[Any]:
        """Every option that the text names, in the order of the text."""
        return self._options(options, self.text)

    def _options(self, options: Sequence[Any], text: str, last: bool = False) -> list[Any]:
        hits: list[tuple[int, int, Any]] = []
        for option in options:
            if isinstance(option, str) and option.lower() not in ("on", "off"):
                # "set_volume" and "media_play" are said without their verb.
                spoken = [word for word in words(option) if word not in ("set", "turn", "media")]
                found = list(phrases.find_all(option, text))
                found = found or list(phrases.find_all(" ".join(spoken), text))
                if found:
                    hit = found[-1 if last else 0]
                    hits.append((hit.start(), -len(hit[0]), option))
            elif isinstance(option, int | float) and not isinstance(option, bool):
                hits += [(f.start, 0, option) for f in self.figures if f.value == option][:1]
        return [option for *_, option in sorted(hits, key=lambda hit: hit[:2])]

    def boolean(self, name: str, needed: bool) -> Any:
        """By the label's yes or no, the words on and off, or whether it is mentioned."""
        if said := self._labelled(name, _YES_OR_NO):
            return said.lower() in _YES
        if set(words(name)) & _SWITCH:
            state = phrases.on_off(self.text)
            if state is not None:
                return state
            return self.eager if needed else NOTHING
        for word in words(name):
            if len(word) > 2 and (hit := phrases.find(word, self.text)):
                lead = self.text[max(0, hit.start() - 12) : hit.start()]
                return not re.search(r"\b(?:no|not|without|never|isn.t)\b|不|没|无", lead, re.I)
        return False if needed else NOTHING

    def _labelled(self, name: str, value: str) -> str | None:
        link = re.compile(rf"[\"']?\s*(?:\b(?:is|was)\b|[:=]|[为是叫])\s*[\"']?{value}", re.I)
        for hit in self._labels(name):
            if found := link.match(self.text, hit.end()):
                return found[1].strip()
        return None

    def string(self, schema: Schema, name: str, needed: bool) -> Any:
        """By format or pattern, the label, or what such a name stands for; else the text."""
        found = self._string(schema, name)
        if found is None:
            if not needed:
                return NOTHING
            found = self._unsaid(schema, name)
        return cut_to_fit(schema, found)

    def _unsaid(self, schema: Schema, name: str) -> str:
        if isinstance(default := schema.get("default"), str):
            return default
        if known := _FORMATS.get(str(schema.get("format"))):
            return known[1]
        tokens = set(words(name))
        if tokens & _PLACE and (earlier := phrases.places(self.before)):
            return earlier[-1]
        if tokens & (_PLACE | _PERSON | _KIND | {"device", "sensor"}):
            return "未知" if phrases.is_chinese(self.text) else "unknown"
        return self.text.strip()

    def _string(self, schema: Schema, name: str) -> str | None:
        shape = schema.get("pattern") or _FORMATS.get(str(schema.get("format")), ("",))[0]
        if shape:
            return hit[0] if (hit := _search(shape, self.text)) else None
        tokens = set(words(name))
        if tokens & _MEDIA and (hit := _PLAYED.search(self.text)):
            return (hit[1] or hit[2]).strip()
        if said := self._labelled(name, _SAID):
            return said
        if tokens & _PLACE:
            return next(iter(phrases.places(self.text)), None)
        if tokens & {"device", "sensor"}:
            hit = re.search(r"\b[A-Za-z]+[-_]?\d+\b", self.text) or re.search(
                r"\b(?:sensor|device)\s+([\w-]+)", self.text, re.I
            )
            return hit[hit.lastindex or 0] if hit else None
        if tokens & _KIND and (kind := phrases.measured(self.text)):
            return kind.unit if "unit" in tokens else kind.quantity
        return phrases.told_name(self.text) if tokens & _PERSON else None


def _search(pattern: str, text: str) -> re.Match[str] | None:
    try:
        return re.search(pattern, text)
    except re.error:  # JSON Schema's patterns are JavaScript's, which are not all Python's
        return None
