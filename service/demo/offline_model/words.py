"""The words that the offline model knows, in English, German and Chinese."""

from __future__ import annotations

import re
from functools import cache

# A line is one meaning: English | German | Chinese; the first word names it.
PLACES = """
kitchen | küche, kueche | 厨房
bedroom | schlafzimmer | 卧室, 睡房, 房间
living room, lounge | wohnzimmer | 客厅
bathroom | badezimmer, im bad | 浴室, 卫生间, 洗手间
study | arbeitszimmer | 书房
office | büro | 办公室
hall, hallway, corridor | flur, diele | 走廊, 门厅
dining room | esszimmer | 餐厅
nursery | kinderzimmer | 儿童房
garage | garage | 车库
garden, yard | garten | 花园, 院子
balcony | balkon | 阳台
terrace | terrasse | 露台
attic | dachboden | 阁楼
basement, cellar | keller | 地下室
greenhouse | gewächshaus | 温室
"""
THINGS = """
light, lamp, lighting, bulb | licht, lampe, leuchte | 灯
climate, air conditioner, air conditioning, aircon, ac, thermostat, heater, heating, hvac | klima, \
heizung | 空调, 暖气, 恒温
speaker, loudspeaker | lautsprecher | 音箱, 音响
blinds, blind, curtain, shutter, shade | rollladen, rolladen, rollo, jalousie, vorhang, vorhänge | \
窗帘, 百叶窗
door, gate | tür, tor | 大门, 房门, 门锁
window | fenster | 窗户
lock | schloss | 锁
fan, ventilator | ventilator, lüfter, lüftung | 风扇
pump | pumpe | 水泵, 泵
valve | ventil | 阀门
tv, television | fernseher | 电视
vacuum | staubsauger | 扫地, 吸尘
sprinkler, irrigation | bewässerung, sprinkler | 浇水, 灌溉, 洒水
socket, plug, outlet | steckdose | 插座
temperature, temp, t | temperatur | 温度, 气温
humidity, hum, rh | feuchtigkeit, luftfeuchte | 湿度
brightness | helligkeit | 亮度
volume, vol | lautstärke | 音量
battery, batt, bat | batterie, akku | 电量, 电池
pressure | luftdruck, druck | 气压, 压力
level | füllstand, pegel | 液位, 水位
weather | wetter | 天气
lawn, grass | rasen | 草坪
plants, flowers | pflanzen, blumen | 植物, 花
device, sensor | gerät, sensor | 设备, 传感器
color, colour | farbe | 颜色
speed | geschwindigkeit | 速度
power | leistung | 功率
voltage | spannung | 电压
"""
# What else tells that a text is about one of these things, without naming it.
HINTS = """
light | brightness, brighter, darker, dim | helligkeit, heller, dunkler, dimm | 亮度, 亮, 暗
climate | temperature, degree, warm, hot, cold, heat, cool, warmer, cooler, colder, hotter | \
temperatur, grad, heiz, warm, kalt, wärmer, kühler, kälter | 温度, 几度, 度, 热, 冷, 暖
temperature | degree, warm, hot, cold | grad, warm, kalt | 几度, 度
speaker | volume, play, pause, music, song, media, player, next, previous, louder, quieter | \
lautstärke, spiel, musik, lied, lauter, leiser | 音量, 播放, 暂停, 音乐, 大声, 小声, 一首
humidity | humid | feucht | 潮湿
"""
VALUES = """
play | spiel, abspielen | 播放, 放一首, 放点
pause | pausiere | 暂停
stop | stopp, anhalten | 停止, 停
next, skip | nächste, weiter | 下一首
previous | vorherige | 上一首
heat, warmer, hotter | heizen, wärmer | 制热, 暖, 热
cool, cooler, colder | kühlen, kühler, kälter | 制冷, 冷, 凉
dry, dehumidify | entfeuchten | 除湿
auto, automatic | automatisch, automatik | 自动
open, opened, raise | öffne, offen, aufmachen, hochfahren | 打开, 开门, 拉开
close, closed, shut, lower | schließ, geschlossen, zumachen, herunterfahren | 关闭, 关上, 拉上
start, started, running | starte | 启动, 开始
lock, locked | abschließen, abgeschlossen, verriegel | 锁上
unlock, unlocked | aufschließen, entriegel | 开锁, 解锁
mute, muted | stumm | 静音
water, sprinkle | bewässer, gieß | 浇水, 浇
red | rot | 红
green | grün | 绿
blue | blau | 蓝
yellow | gelb | 黄
white | weiß | 白
positive, good, great, happy, love | gut, toll, freue | 正面, 喜欢, 高兴
negative, bad, awful, angry, broken, hate | schlecht, ärger, kaputt | 负面, 生气, 坏了
high, urgent, critical | hoch, dringend, kritisch | 高, 紧急, 严重
low, minor | niedrig, gering | 低
warning, warn | warnung | 警告
"""


Columns = tuple[tuple[str, ...], ...]


def _groups(text: str) -> dict[str, Columns]:
    found = {}
    for line in text.strip().splitlines():
        columns = tuple(
            tuple(word.strip() for word in part.split(",") if word.strip())
            for part in line.split("|")
        )
        found[columns[0][0]] = columns
    return found


_PLACES, _THINGS, _VALUES = _groups(PLACES), _groups(THINGS), _groups(VALUES)
_HINTS = {name: columns[1:] for name, columns in _groups(HINTS).items()}
_MEANING = {
    word: columns
    for group in (_VALUES, _THINGS, _PLACES)
    for columns in group.values()
    for column in columns
    for word in column
}


_FOLDS = (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss"))


def _folded(word: str) -> str:
    for sign, letters in _FOLDS:
        word = word.replace(sign, letters)
    return word


# German words by how they are written without umlauts, to find their forms: oeffnen, haustuer.
_GERMAN_STEMS = {
    _folded(word): columns
    for group in (_PLACES, _THINGS, _VALUES)
    for columns in group.values()
    for word in columns[1]
    if len(word) > 4 or not word.isascii()
}


def _meaning(word: str) -> Columns | None:
    if word in _MEANING:
        return _MEANING[word]
    plain = _folded(word)
    return next((c for stem, c in _GERMAN_STEMS.items() if plain.startswith(stem)), None)


def split(name: str) -> list[str]:
    """A property's or tool's name as words: `targetTemperature` → target, temperature."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word.lower() for word in re.split(r"[^\w]+|_", spaced) if word]


@cache
def _pattern(word: str) -> re.Pattern[str]:
    plain = " ".join(split(word))
    columns = _meaning(plain)
    if columns is None:
        return _compiled(((plain,), (), ()))
    return _compiled(((plain, *columns[0]), *columns[1:]))


@cache
def _compiled(columns: Columns) -> re.Pattern[str]:
    ways = []
    for at, column in enumerate(columns):
        for each in sorted(column, key=len, reverse=True):
            body = re.escape(each).replace(r"\ ", r"[\s_-]*")
            for sign, letters in _FOLDS:
                body = re.sub(f"{sign}|{letters}", f"(?:{sign}|{letters})", body)
            if not each.isascii() and not re.search(r"[äöüß]", each):
                ways.append(body)  # Chinese has no spaces between words
            elif at == 1 and (len(each) > 4 or not each.isascii()):
                ways.append(body)  # German joins words: Küchenlicht
            else:
                ways.append(rf"(?<![^\W_])(?<!\d){body}(?:e?s|n)?(?![^\W_\u4e00-\u9fff]|\d)")
    return re.compile("|".join(ways), re.IGNORECASE)


def find(word: str, text: str) -> re.Match[str] | None:
    """The first place where the text says the word, or one that means the same."""
    return _pattern(word).search(text) if split(word) else None


def find_all(word: str, text: str) -> list[re.Match[str]]:
    """Every place where the text says the word, or one that means the same."""
    return list(_pattern(word).finditer(text)) if split(word) else []


def known(word: str) -> bool:
    """Whether the word is in the lists above."""
    return _meaning(word) is not None


OPPOSITES = {"open": "close", "close": "open", "lock": "unlock", "unlock": "lock",
             "start": "stop", "mute": "unmute"}  # fmt: skip


def opposite(word: str) -> str | None:
    """What is said for the contrary: unlock for locked."""
    columns = _meaning(word)
    return OPPOSITES.get(columns[0][0]) if columns else None


def places(text: str) -> list[str]:
    """The rooms that the text names, in its order, in English."""
    hits = [(hit.start(), name) for name in _PLACES if (hit := find(name, text))]
    return [name for _, name in sorted(hits)]


def things(text: str) -> set[str]:
    """The devices and quantities that the text names, in English."""
    return {
        name
        for name in _THINGS
        if find(name, text) or (name in _HINTS and _compiled(_HINTS[name]).search(text))
    }


def begins_known(text: str) -> bool:
    """Whether the text begins, but for an article, with a room or thing known here."""
    hits = (find(name, text[:40]) for name in (*_PLACES, *_THINGS))
    return any(hit.start() <= 8 for hit in hits if hit)


def meanings(text: str) -> set[str]:
    """Everything known here that the text names, rooms apart."""
    return things(text) | {name for name in _VALUES if find(name, text)}


_OFF = re.compile(
    r"\b(?:off|disable|deactivate|aus|aus(?:schalten|machen)|abschalten)\b|关(?!于|系|心|注)|熄",
    re.IGNORECASE,
)
_ON = re.compile(
    r"\b(?:turn|switch|put|power)(?:ed)?\b[^,;.]{0,60}?\bon\b|\bon\b\s*(?:[.!?,;]|$)"
    r"|\b(?:enable|activate|light(?:en)?\s+up|(?:ein|an)(?:schalten|machen))\b"
    r"|\b(?:mach|schalt|dreh)e?n?\b[^,;.]{0,60}?\b(?:an|ein)\b\s*(?=[.!?,;]|$|und\b)"
    r"|\b(?:an|ein)\s*(?:[.!?,;]|$)"
    r"|打开|开启|点亮|开(?=.{0,6}灯|着|了)",
    re.IGNORECASE,
)


def on_off(text: str) -> bool | None:
    """What the text says of a switch; None when it says nothing."""
    if _OFF.search(text):
        return False
    return True if _ON.search(text) else None


_GERMAN = re.compile(
    r"\b(?:der|die|das|den|dem|ist|und|nicht|ich|bin|mach|schalte?|stelle?|bitte|wie|wer|was|ein|"
    r"eine|im|auf|für|heiße|mein|guten|hallo|öffne|schließe?|spiele?|welche[rs]?|warum)\b|[äöüß]",
    re.IGNORECASE,
)


def language(text: str) -> str:
    """`en`, `de` or `zh`: in which language a person would answer this."""
    latin = len(re.findall(r"[A-Za-zÀ-ÿ]+", text))
    if len(re.findall(r"[\u4e00-\u9fff]", text)) > latin:
        return "zh" if not re.search(r"[\u3040-\u30ff]", text) else "en"
    return "de" if len(_GERMAN.findall(text)) * 4 >= max(latin, 1) else "en"


def shorten(text: str, limit: int = 160) -> str:
    """The text on one line, cut so that it can be quoted."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"
