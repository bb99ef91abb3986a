"""Finds the words of `vocabulary.toml` in a text, in English, German and Chinese."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

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


_FILE = files("service.demo.offline_model") / "vocabulary.toml"
_VOCABULARY = tomllib.loads(_FILE.read_text("utf-8"))
SAYS: Mapping[str, Mapping[str, str]] = _VOCABULARY["says"]  # sentences by language
_PLACES, _THINGS, _VALUES, _WHICH = (
    _groups(_VOCABULARY[name]) for name in ("places", "things", "values", "which")
)
_HINTS = {name: columns[1:] for name, columns in _groups(_VOCABULARY["hints"]).items()}
_MEANING = {
    word: columns
    for group in (_WHICH, _VALUES, _THINGS, _PLACES)
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
    for group in (_PLACES, _THINGS, _VALUES, _WHICH)
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
_AGAINST = {"open": {"close", "lock"}, "close": {"open", "unlock"}, "lock": {"unlock", "open"},
            "unlock": {"lock", "close"}, "start": {"stop"}, "stop": {"start"},
            "mute": {"unmute"}, "unmute": {"mute"}}  # fmt: skip
# German verbs that stand in two parts: "schließ die Tür auf" opens what "schließ" would close.
_APART = {
    "unlock": re.compile(r"\b(?:schlie(?:ß|ss)|sperr)e?n?\b[^,;.!?]{1,60}?\bauf\b", re.I),
    "open": re.compile(r"\bmach(?:e|en)?\b[^,;.!?]{1,60}?\bauf\b", re.I),
    "close": re.compile(r"\bmach(?:e|en)?\b[^,;.!?]{1,60}?\bzu\b", re.I),
}


def doings(text: str) -> set[str]:
    """What can be undone again, and the text names: unlock, close, start. A name or a sentence."""
    spaced = " ".join(split(text))
    apart = {name for name, how in _APART.items() if how.search(text)}
    found = {
        name
        for name, columns in _VALUES.items()
        if name in _AGAINST
        if _compiled(columns).search(text) or _compiled(columns).search(spaced)
    }
    return (found - {"close"} if "unlock" in apart else found) | apart


def contrary(name: str, text: str) -> bool:
    """Whether the text says the contrary of what a name does, and not that itself."""
    does, says = doings(" ".join(split(name))), doings(text)
    return not does & says and any(_AGAINST.get(each, set()) & says for each in does)


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
