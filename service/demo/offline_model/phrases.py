"""What a sentence says, in English or Chinese: all that the offline model understands.

Pure functions over fixed phrases; nothing here knows of HTTP, tools or JSON Schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

# Words that mean the same. The first is how it is written in English, the first
# Chinese one how it is written in Chinese.
PLACES = (
    ("kitchen", "厨房"),
    ("bedroom", "卧室", "睡房", "房间"),
    ("living room", "客厅", "lounge", "livingroom"),
    ("bathroom", "浴室", "卫生间", "洗手间"),
    ("study", "书房"),
    ("office", "办公室"),
    ("hall", "走廊", "hallway", "corridor", "门厅"),
    ("dining room", "餐厅"),
    ("garage", "车库"),
    ("garden", "花园", "院子"),
    ("balcony", "阳台"),
    ("attic", "阁楼"),
    ("basement", "地下室", "cellar"),
    ("nursery", "儿童房"),
)
WORDS = (
    ("light", "灯", "lamp", "lighting", "bulb"),
    ("climate", "空调", "air conditioner", "air conditioning", "aircon", "thermostat", "ac"),
    ("speaker", "音箱", "音响", "loudspeaker"),
    ("temperature", "温度", "气温", "temp", "t"),
    ("humidity", "湿度", "hum", "rh"),
    ("brightness", "亮度", "brighter", "dim"),
    ("volume", "音量", "vol", "louder", "quieter", "大声", "小声"),
    ("battery", "电量", "电池", "batt", "bat"),
    ("pressure", "气压", "压力"),
    ("device", "设备", "sensor", "传感器"),
    ("play", "播放", "放一首", "放点"),
    ("pause", "暂停"),
    ("stop", "停止", "停"),
    ("next", "下一首", "skip"),
    ("previous", "上一首"),
    ("heat", "制热", "heating", "warmer", "暖"),
    ("cool", "制冷", "cooling", "cooler", "colder", "冷"),
    ("dry", "除湿", "dehumidify"),
    ("fan", "送风", "ventilate"),
    ("auto", "自动", "automatic"),
    ("positive", "正面", "good", "great", "happy", "love", "喜欢", "高兴"),
    ("negative", "负面", "bad", "awful", "angry", "broken", "hate", "生气", "坏了"),
    ("high", "高", "urgent", "critical", "紧急", "严重"),
    ("low", "低", "minor"),
)
# What a command or a question is about, also where it does not say the device's name.
TOPICS = {
    "light": ("light", "brightness", "darker"),
    "climate": (
        "climate", "heat", "cool", "temperature", "degree", "heater", "hvac",
        "warm", "hot", "cold", "几度", "度", "暖气",
    ),
    "speaker": ("speaker", "volume", "play", "pause", "music", "song", "media", "player", "音乐",
                "next", "previous"),
    "humidity": ("humidity", "humid"),
    "door": ("door", "lock", "门锁", "大门"),
    "blinds": ("blind", "curtain", "shutter", "窗帘"),
}  # fmt: skip

_SAME = {word: group for group in PLACES + WORDS for word in group}


def is_chinese(text: str) -> bool:
    """Whether a person would answer this in Chinese: a foreign word in it does not decide."""
    if re.search(r"[\u3040-\u30ff]", text):
        return False
    return len(re.findall(r"[\u4e00-\u9fff]", text)) > len(re.findall(r"[A-Za-z]+", text))


def shorten(text: str, limit: int = 200) -> str:
    """The text on one line, cut so that it can be quoted."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


def equivalents(word: str) -> tuple[str, ...]:
    """All ways to say the word that are known here; at least the word itself."""
    plain = re.sub(r"[_\-\s]+", " ", word).strip().lower()
    return tuple(dict.fromkeys((plain, *_SAME.get(plain, ()))))


def in_chinese(word: str) -> str:
    """The word in Chinese where it is known, else as it is."""
    return next((each for each in equivalents(word) if re.match(r"[\u4e00-\u9fff]", each)), word)


@cache
def _pattern(word: str) -> re.Pattern[str]:
    ways = []
    for each in sorted(equivalents(word), key=len, reverse=True):
        body = re.escape(each).replace(r"\ ", r"[\s_-]*")
        # \b does not do: it sees no border between a Chinese and a Latin letter.
        latin = each.isascii()
        ways.append(rf"(?<![A-Za-z0-9]){body}(?:e?s)?(?![A-Za-z0-9])" if latin else body)
    return re.compile("|".join(ways), re.IGNORECASE)


def find(word: str, text: str) -> re.Match[str] | None:
    """The first place where the text says the word or one that means the same."""
    return _pattern(word).search(text) if word.strip() else None


def find_all(word: str, text: str) -> Iterable[re.Match[str]]:
    """Every place where the text says the word or one that means the same."""
    return _pattern(word).finditer(text) if word.strip() else ()


def topics(text: str) -> set[str]:
    """What the text is about, of the few things known here."""
    return {topic for topic, words in TOPICS.items() if any(find(word, text) for word in words)}


def places(text: str) -> list[str]:
    """The rooms named in the text, in their order, in English."""
    hits = [(hit.start(), group[0]) for group in PLACES if (hit := find(group[0], text))]
    return [name for _, name in sorted(hits)]


_OFF = re.compile(r"\boff\b|\bdisable\b|\bdeactivate\b|关(?!于|系|心|注)|熄", re.IGNORECASE)
_ON = re.compile(
    r"\b(?:turn|switch|put|power)(?:ed)?\b[^,;.]{0,60}?\bon\b|\bon\b\s*(?:[.!?,;]|$)"
    r"|\benable\b|\bactivate\b|\blight(?:en)?\s+up\b|打开|开启|点亮|开(?=.{0,6}灯|着|了)",
    re.IGNORECASE,
)


def on_off(text: str) -> bool | None:
    """What the text says of a switch; None when it says nothing."""
    if _OFF.search(text):
        return False
    return True if _ON.search(text) else None


_LATIN = r"[^\W\d_][\w'’-]*"
_CAPITAL = r"[A-ZÀ-ÞΑ-ΩА-Я][\w'’-]*"
_CHINESE = r"(?:[\u4e00-\u9fff·]{1,6}?|[A-Za-z][\w'-]*)"
_ENDS = r"(?=$|[\s，。！？；,.!?;~～]|很|今年|你好|请|住|喜欢|来自|吧|呢|啊|哦|就|好|和|，)"
_TOLD = (
    re.compile(rf"\b(?i:my name is|my name['’]s|call me)\s+({_LATIN}(?:\s{_CAPITAL}){{0,2}})"),
    # After "I am" only a capital letter tells a name from "hungry".
    re.compile(rf"\b(?i:i am|i['’]m)\s+({_CAPITAL}(?:\s{_CAPITAL}){{0,2}})"),
    re.compile(rf"(?:我的名字[是叫]|我叫做?|[叫称]我[做作为]?)\s*({_CHINESE}){_ENDS}"),
    re.compile(rf"我是\s*({_CHINESE})(?=$|[，。！,.!])"),
)
_NO_NAME = re.compile(
    r"(?:not|a|an|the|when|if|at|in|on|back|later|again|now|tomorrow|soon|crazy|what|who|so|very)$"
    r"|什么|啥|谁|不|一|个|来|在|想|要|说|学生|老师|用户|男|女|人|哪|起床|的",
    re.IGNORECASE,
)


def told_name(text: str) -> str | None:
    """The name the speaker gives in this text; the last one where there are several."""
    told: tuple[int, str] | None = None
    for pattern in _TOLD:
        for hit in pattern.finditer(text):
            name = hit[1].rstrip("'’-")
            shouted = len(name) > 1 and name.isupper() and pattern is _TOLD[1]
            if not _NO_NAME.match(name) and not shouted and (told is None or hit.start() > told[0]):
                told = (hit.start(), name)
    return told[1] if told else None


def last_name(texts: Sequence[str]) -> str | None:
    """The name that holds after all these texts."""
    return next((name for text in reversed(texts) if (name := told_name(text))), None)


_ASKS_NAME = re.compile(
    r"\bwhat(?:['’]?s| is| was) my name\b|\bwho am i\b|\b(?:know|remember|tell me|say) my name\b"
    r"|\b(?:know|remember) who i am\b"
    r"|我叫(?:什么|啥)|我的?(?:名字|姓名)[是叫](?:什么|啥)|我是谁|(?:知道|记得)我(?:的名字|叫)",
    re.IGNORECASE,
)


def asks_name(text: str) -> bool:
    """Whether the speaker asks what he or she is called."""
    return bool(_ASKS_NAME.search(text))


_STORY = re.compile(
    r"\bstory\s+(?:about|of)\b\W{0,3}(\S.{0,200})|关于(.{1,100}?)的.{0,4}故事",
    re.IGNORECASE | re.DOTALL,
)


def story_about(text: str) -> str | None:
    """What a story is wished about."""
    if hit := _STORY.search(text):
        return shorten((hit[1] or hit[2]).strip(" .!。！"), 100)
    return None


class Measured(NamedTuple):
    """What kind of reading a piece of text holds, and its unit."""

    quantity: str
    unit: str


# By its name where the text has one, else by the unit after the number.
_QUANTITIES = (
    ("temperature", "°C", r"°\s?[CF]?|℃|degrees?\b|celsius\b|度|C\b"),
    ("humidity", "%", ""),
    ("battery", "%", ""),
    ("brightness", "lx", r"lux\b|lx\b"),
    ("level", "%", r"%\s*full|percent\s+full"),
    ("pressure", "hPa", r"h?Pa\b|bar\b"),
    ("co2", "ppm", r"ppm\b"),
    ("voltage", "V", r"V\b|volts?\b"),
    ("energy", "kWh", r"kWh\b"),
    ("power", "W", r"k?W\b|watts?\b"),
    ("speed", "m/s", r"km/h|m/s"),
    ("share", "%", r"%|percent\b"),
)
_UNITS = tuple(
    (Measured(name, unit), re.compile(rf"\s*({after})", re.IGNORECASE))
    for name, unit, after in _QUANTITIES
    if after
)


def unit_at(text: str, at: int) -> Measured | None:
    """The unit that stands at this place of the text, right after a number."""
    for kind, after in _UNITS:
        if hit := after.match(text, at):
            said = hit[1]
            standard = kind.quantity in ("temperature", "level", "share") or len(said) > 4
            return kind if standard else Measured(kind.quantity, said)
    return None


def measured(text: str) -> Measured | None:
    """The kind of the first reading in the text, if it says one."""
    ends = (hit.end() for hit in re.finditer(r"\d(?![\d.])", text))
    unit = next((found for end in ends if (found := unit_at(text, end))), None)
    for name, usual, _ in _QUANTITIES:
        if find(name, text):
            return Measured(name, unit.unit if unit else usual)
    return unit


class Alarm(NamedTuple):
    """A sensor's reading and its limit, as the alarm prompt states them."""

    sensor: str
    value: float
    limit: float
    unit: str


_NUMBER = r"-?\d{1,12}(?:\.\d{1,9})?"
_ALARMS = (
    re.compile(
        rf"\bsensor\s+(?P<sensor>\S.{{0,80}}?)\s+(?:reads?|shows?|measures?|is at)\s+"
        rf"(?P<value>{_NUMBER})\s*(?P<unit>[^\s;,.，。；]{{0,8}}).{{0,80}}?"
        rf"\blimit\s*(?:is|of|:)?\s*(?P<limit>{_NUMBER})",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(
        rf"传感器\s*(?P<sensor>\S.{{0,80}}?)\s*的?(?:读数|显示|测得|温度)[为是：:]?\s*"
        rf"(?P<value>{_NUMBER})\s*(?P<unit>[^\s;,.，。；]{{0,8}}).{{0,80}}?"
        rf"(?:上限|限值|阈值)[为是：:]?\s*(?P<limit>{_NUMBER})",
        re.DOTALL,
    ),
)


def alarm(text: str) -> Alarm | None:
    """The reading in a sensor prompt, if the text is one."""
    for pattern in _ALARMS:
        if hit := pattern.search(text):
            value, limit = float(hit["value"]), float(hit["limit"])
            return Alarm(hit["sensor"], value, limit, hit["unit"])
    return None
