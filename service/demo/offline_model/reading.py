"""Single values out of a text, for `fill`: numbers, words, switches and enums by name.

Each method answers NOTHING where the text does not say the value and it is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from service.demo.offline_model import vocabulary

Schema = Mapping[str, Any]
NOTHING: Final = object()  # the text says nothing about it: not the same as null

# A dash or dot inside a word or a date ("sensor-7", "2026-11-03") is no sign.
_NUMBER = re.compile(r"(?<![\w.])(?<!\w-)-?\d{1,15}(?:[.,]\d{1,9})?(?!\d|[.,]\d)")
_CHINESE_NUMBER = re.compile(r"(?<=[\u4e00-\u9fff])-?\d{1,15}(?:\.\d{1,9})?(?!\d|\.\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?")
# What may stand between a label and its number.
_GAP = re.compile(
    r"[\W_]{0,4}(?:(?:is|at|to|of|was|now|about|around|set|reads?|value|ist|auf|bei|von|liegt)\b"
    r"\W{0,3}){0,3}|\W{0,3}[\u4e00-\u9fff]{0,4}\W{0,3}",
    re.IGNORECASE,
)
# Units, and the quantity that each tells: standard name, then what may be written.
_UNITS = (
    ("temperature", "°C", r"°\s?[CF]?|℃|degrees?\b|celsius\b|grad\b|度|C\b"),
    ("level", "%", r"%\s*(?:full|voll)|percent\s+full|prozent\s+voll"),
    ("pressure", "hPa", r"h?Pa\b|bar\b"),
    ("co2", "ppm", r"ppm\b"),
    ("brightness", "lx", r"lux\b|lx\b"),
    ("voltage", "V", r"V\b|volts?\b"),
    ("energy", "kWh", r"kWh\b"),
    ("power", "W", r"k?W\b|watts?\b"),
    ("speed", "m/s", r"km/h|m/s"),
    ("share", "%", r"%|percent\b|prozent\b"),
)
_UNIT_AT = tuple((name, unit, re.compile(rf"\s*({how})", re.I)) for name, unit, how in _UNITS)
_SHARES = {
    "humidity",
    "brightness",
    "volume",
    "battery",
    "percent",
    "level",
    "moisture",
    "position",
}
_USUAL_UNITS = {"temperature": "°C", "humidity": "%", "battery": "%", "level": "%"}
# Comparatives name a number without saying it; and what a command sets if nothing is said.
_IMPLIED = {
    "temperature": (
        ("warmer|hotter|wärmer|热一点|暖一点", 24),
        ("cooler|colder|kühler|kälter|冷一点|凉一点", 20),
    ),
    "brightness": (("brighter|heller|亮一点", 80), (r"\bdim\b|darker|dimm|dunkler|暗一点", 20)),
    "volume": (("louder|lauter|大声", 60), ("quieter|softer|leiser|小声", 20)),
}
_USUAL = {"temperature": 21, "brightness": 100, "volume": 30}
_FORMATS = {
    "date-time": (_DATE.pattern.replace("(?:[T ]", "(?:T"), "1970-01-01T00:00:00Z"),
    "date": (r"\d{4}-\d\d-\d\d", "1970-01-01"),
    "time": (r"\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)", "00:00:00Z"),
    "email": (r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}", "nobody@example.org"),
    "uri": (r"https?://[^\s\"'<>]+", "https://example.org/"),
    "ipv4": (r"\b\d{1,3}(?:\.\d{1,3}){3}\b", "192.0.2.1"),
    "uuid": (r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", str(UUID(int=0))),
}  # fmt: skip
_SWITCH = {"on", "power", "enabled", "active", "switch", "an", "ein", "state", "开", "开关"}
_PLACE = {"room", "place", "area", "location", "zone", "where", "raum", "zimmer", "ort", "房间"}
_KIND = {"unit", "quantity", "measure", "measurement", "metric"}
_PERSON = {"name", "user", "person", "customer", "kunde", "姓名", "客户"}
_DEVICE = {"device", "sensor", "geraet", "gerät", "设备", "传感器"}
_PROPER = {"city", "town", "address", "destination", "to", "recipient", "contact", "stadt",
           "empfaenger", "empfänger", "城市", "地点", "收件人"}  # fmt: skip
# "in Berlin", "to Bob"; and in Chinese what stands before the thing that is asked for.
_AFTER = re.compile(
    r"\b(?:in|to|for|at|near|nach|an|für|bei)\s+([A-ZÄÖÜ][\w'-]*(?:\s[A-ZÄÖÜ][\w'-]*){0,3})"
    r"|(?:^|查询|查一下|请问|给|在)([\u4e00-\u9fff]{2,4}?)(?=的|今天|明天|现在|天气|发)"
)
_MEDIA = {"media", "song", "title", "query", "genre", "playlist", "track", "artist", "music"}
_PLAYED = re.compile(
    r"\b(?:play|spiele?)\s+(?:some\s+|me\s+|etwas\s+)?(.{1,80}?)"
    r"(?=\s+(?:in|on|at|with|im|auf|mit)\s|[,.;!?]|$)"
    r"|(?:播放|放一首|放点)(.{1,40}?)(?=$|[，。！,.!])",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»]{1,200})[\"”“»]")
_NAMED = re.compile(
    r"\b(?:my name is|my name['’]s|call me|i am|i['’]m|mein name ist|ich heiße|ich bin)\s+"
    r"([^\W\d_][\w'’-]*(?:\s[A-ZÀ-Þ][\w'’-]*){0,2})"
    r"|(?:我的名字[是叫]|我叫做?|[叫称]我|我是)\s*([\u4e00-\u9fff·]{1,6}?|[A-Za-z][\w'-]*)"
    r"(?=$|[\s，。！？；,.!?;~]|吧|很|你好)",
    re.IGNORECASE,
)
_NO_NAME = re.compile(
    r"(?:not|an?|the|in|on|back|later|again|now|soon|so|very|hier|nicht|sehr)$"
    r"|什么|啥|谁|不|一|在|想|要|学生|老师|用户|哪|的",
    re.IGNORECASE,
)
_SAID = r"([^,;，；。\"\n{}]{1,120}?)(?=\s+and\s|\s+und\s|[,;，；。\"\n{}]|\.?\s*$|\.\s)"
_YES_OR_NO = r"(true|false|yes|no|on|off|1|0|ja|nein|an|aus|是|否|开|关)(?![A-Za-z0-9])"
_NEGATED = re.compile(
    r"\b(?:no|not|without|never|keine?|ohne|nicht)\b|n['’]t\b|不|没|无", re.IGNORECASE
)
_YES = ("true", "yes", "on", "1", "ja", "an", "是", "开")
_UNSURE = ("unknown", "other", "none", "neutral", "normal", "auto", "medium", "info", "unbekannt")


class Figure(NamedTuple):
    """A number in the text, and where it stands."""

    value: float
    start: int
    end: int


def told_name(text: str) -> str | None:
    """The name that the speaker gives; after "I am" only a capital tells one from "hungry"."""
    found = None
    for hit in _NAMED.finditer(text):
        name = re.split(r"\s(?![A-ZÀ-Þ])|\s(?=I\b)", hit[1] or hit[2])[0].rstrip("'’-")
        loose = re.match(r"(?i)i am|i['’]m|ich bin|call me|我是", hit[0])
        shouted = len(name) > 1 and name.isupper()
        if not (loose and (name[0].islower() or shouted)) and not _NO_NAME.match(name):
            found = name
    return found


def unit_at(text: str, at: int) -> tuple[str, str] | None:
    """(quantity, unit) of the unit that stands at this place, right after a number."""
    for name, unit, after in _UNIT_AT:
        if hit := after.match(text, at):
            standard = name in ("temperature", "level", "share") or len(hit[1]) > 4
            return name, unit if standard else hit[1]
    return None


def measured(text: str) -> tuple[str, str] | None:
    """(quantity, unit) of the first reading in the text, if it says one."""
    ends = (hit.end() for hit in re.finditer(r"\d(?![\d.])", text))
    unit = next((found for end in ends if (found := unit_at(text, end))), None)
    for name in ("temperature", "humidity", "battery", "brightness", "level", "pressure",
                 "voltage", "power", "speed"):  # fmt: skip
        if vocabulary.find(name, text):
            return name, unit[1] if unit else _USUAL_UNITS.get(name, "")
    return unit


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
    """A text, read for the properties of one schema.

    `names`: all its property names, and which take numbers. `before`: earlier text, where an
    enum's value may stand. `eager`: see `fill`.
    """

    def __init__(self, text: str, names: Mapping[str, bool], before: str, eager: bool) -> None:
        self.text, self.before, self.eager = text, before, eager
        plain = _DATE.sub(lambda hit: "_" * len(hit[0]), text)
        hits = {h.start(): h for p in (_NUMBER, _CHINESE_NUMBER) for h in p.finditer(plain)}
        self.figures = [Figure(_value(h[0]), h.start(), h.end()) for _, h in sorted(hits.items())]
        self.taken: set[Figure] = set()
        # "room 5" is a room's name and no temperature: a label right before a number claims it.
        self.claims: dict[Figure, str] = {}
        labels = {(hit.end(), name) for name in names for hit in self._labels(name)}
        for end, name in sorted(labels):
            after = next((each for each in self.figures if each.start >= end), None)
            gap = _GAP if names[name] else re.compile(r"\W{0,3}")
            if after and gap.fullmatch(text, end, after.start):
                self.claims[after] = name

    def _labels(self, name: str) -> list[re.Match[str]]:
        parts = [word for word in vocabulary.split(name) if vocabulary.known(word)]
        return [hit for each in (name, *parts) for hit in vocabulary.find_all(each, self.text)]

    def number(self, schema: Schema, name: str, needed: bool, whole: bool) -> Any:
        """The number with the property's label, else its unit, else any that is left."""
        if figure := self._figure(name, needed or self.eager):
            self.taken.add(figure)
            return bounded(schema, figure.value, whole)
        tokens = vocabulary.split(name)
        for pattern, value in (pair for word in tokens for pair in _IMPLIED.get(word, ())):
            if re.search(pattern, self.text, re.IGNORECASE):
                return bounded(schema, value, whole)
        if not needed:
            return NOTHING
        usual = next((_USUAL[word] for word in tokens if word in _USUAL), 0)
        return bounded(schema, schema.get("default") or (usual if self.eager else 0), whole)

    def numbers(self, name: str) -> list[float]:
        """All numbers but those that another property's label claims."""
        return [each.value for each in self.figures if self.claims.get(each, name) == name]

    def _figure(self, name: str, any_left: bool) -> Figure | None:
        free = [each for each in self.figures if each not in self.taken]
        if mine := [each for each in free if self.claims.get(each) == name]:
            return mine[0]
        free = [each for each in free if each not in self.claims]
        tokens = set(vocabulary.split(name))
        for figure in free:
            kind, _ = unit_at(self.text, figure.end) or ("", "")
            if kind in tokens or (kind == "share" and tokens & _SHARES):
                return figure
        free.sort(key=lambda each: unit_at(self.text, each.end) is None)  # a reading has a unit
        return free[0] if free and any_left else None

    def enum(self, options: Sequence[Any], needed: bool) -> Any:
        """The option that the text names first; where it is needed also one named before."""
        state = vocabulary.on_off(self.text)
        for option in options:
            if state is not None and str(option).lower() in (("on",) if state else ("off",)):
                return option
        if said := self.options(options, self.text):
            return said[0]
        if not needed:
            return NOTHING
        if earlier := self.options(options, self.before, last=True):
            return earlier[-1]
        return next((o for o in options if o is None or str(o).lower() in _UNSURE), options[0])

    def options(self, options: Sequence[Any], text: str, last: bool = False) -> list[Any]:
        """Every option that the text names, in the order of the text."""
        hits: list[tuple[int, int, int, Any]] = []
        for at, option in enumerate(options):
            if isinstance(option, str) and option.lower() not in ("on", "off"):
                # "set_volume" and "media_play" are said without their verb.
                spoken = [each for each in vocabulary.split(option) if each not in ("set", "media")]
                found = vocabulary.find_all(option, text) or vocabulary.find_all(
                    " ".join(spoken), text
                )
                if found:
                    hit = found[-1 if last else 0]
                    hits.append((hit.start(), -len(hit[0]), at, option))
            elif isinstance(option, int | float) and not isinstance(option, bool):
                hits += [(f.start, 0, at, option) for f in self.figures if f.value == option][:1]
        return [option for *_, option in sorted(hits, key=lambda hit: hit[:3])]

    def boolean(self, name: str, needed: bool) -> Any:
        """By the label's yes or no, the words on and off, or whether it is mentioned."""
        if said := self._labelled(name, _YES_OR_NO):
            return said.lower() in _YES
        if set(vocabulary.split(name)) & _SWITCH:
            state = vocabulary.on_off(self.text)
            return state if state is not None else self.eager if needed else NOTHING
        for word in vocabulary.split(name):
            if (contrary := vocabulary.opposite(word)) and vocabulary.find(contrary, self.text):
                return False
            if len(word) > 2 and (hit := vocabulary.find(word, self.text)):
                lead = self.text[max(0, hit.start() - 12) : hit.start()]
                return not _NEGATED.search(lead)
        return False if needed else NOTHING

    def _labelled(self, name: str, value: str) -> str | None:
        link = re.compile(rf"[\"']?\s*(?:\b(?:is|was|ist)\b|[:=]|[为是叫])\s*[\"']?{value}", re.I)
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
        if fallback := _FORMATS.get(str(schema.get("format"))):
            return fallback[1]
        tokens = set(vocabulary.split(name))
        if tokens & _PLACE and (earlier := vocabulary.places(self.before)):
            return earlier[-1]
        if tokens & (_PLACE | _PERSON | _KIND | _DEVICE):
            return {"zh": "未知", "de": "unbekannt"}.get(vocabulary.language(self.text), "unknown")
        quoted = _QUOTED.search(self.text)
        return quoted[1] if quoted and self.eager else self.text.strip()

    def _string(self, schema: Schema, name: str) -> str | None:
        if shape := schema.get("pattern") or _FORMATS.get(str(schema.get("format")), ("",))[0]:
            try:
                return hit[0] if (hit := re.search(shape, self.text)) else None
            except re.error:  # JSON Schema's patterns are JavaScript's, not all of them Python's
                return None
        tokens = set(vocabulary.split(name))
        if tokens & _PROPER and (hit := _AFTER.search(self.text)):
            return hit[1] or hit[2]
        if tokens & _MEDIA and (hit := _PLAYED.search(self.text)):
            return (hit[1] or hit[2]).strip()
        if said := self._labelled(name, _SAID):
            return said
        if tokens & _PLACE:
            return next(iter(vocabulary.places(self.text)), None)
        if tokens & _DEVICE:
            hit = re.search(r"\b[A-Za-z]+[-_]?\d+\b", self.text) or re.search(
                r"\b(?:sensor|device)\s+([\w-]+)", self.text, re.I
            )
            return hit[hit.lastindex or 0] if hit else None
        if tokens & _KIND and (kind := measured(self.text)):
            return kind[1] if "unit" in tokens else kind[0]
        return told_name(self.text) if tokens & _PERSON else None


def _value(digits: str) -> float:
    if re.fullmatch(r"-?\d+,\d{3}", digits):
        return float(digits.replace(",", ""))  # 1,000
    return float(digits.replace(",", "."))  # 21,5 Grad
