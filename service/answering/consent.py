"""What a person's answer means: yes, no, or neither. Pure."""

from __future__ import annotations

import hmac
import re
from enum import Enum, auto
from typing import Any

from service.mqtt.templates import MISSING, decode_json

_AGREES = """yes y yep yeah ok okay sure confirm confirmed affirmative true
ja jawohl jo genau klar bestätige bestätigt einverstanden 是 是的 好 好的 确认 可以 同意 行 对"""
_REFUSES = """no n nope not never cancel stop abort deny denied dont don't don’t false
nein nee nicht niemals abbrechen abbruch ablehnen 否 取消 别"""
_FILLS = "please do it go ahead that i bitte mach das machs es ich gerne 请 吧"
_YES, _NO, _FILLING = (frozenset(words.split()) for words in (_AGREES, _REFUSES, _FILLS))
_WORD = re.compile(r"[^\s,.!?;:…，。！？；：、\"“”]+")
_DIGITS = re.compile(r"[0-9](?:[ -]?[0-9])+|[0-9]")


class YesOrNo(Enum):
    """Of what a person said."""

    YES = auto()
    NO = auto()
    NEITHER = auto()
    NO_PIN = auto()  # yes, but the PIN is missing
    WRONG_PIN = auto()


def meaning(payload: bytes, pin: str | None) -> YesOrNo:
    """Of a message: words in English, German or Chinese, or JSON `{"answer": "yes", "pin": …}`.

    `pin`: a yes must bring it. A no never has to.
    """
    said, given = _parts(payload)
    if pin is not None and given is None and said not in (True, False):
        found = _DIGITS.findall(str(said))
        given = re.sub(r"[ -]", "", found[-1]) if found else None
        said = _DIGITS.sub(" ", str(said))
    agreed = said if isinstance(said, bool) else _agreed(str(said))
    if agreed is False:
        return YesOrNo.NO
    if pin is None:
        return YesOrNo.YES if agreed else YesOrNo.NEITHER
    if given is None:
        return YesOrNo.NO_PIN if agreed else YesOrNo.NEITHER
    if agreed is None and _words(str(said)):
        return YesOrNo.NEITHER  # a number in a sentence about something else
    right = hmac.compare_digest(given.encode("utf-8", "replace"), pin.encode())
    return YesOrNo.YES if right else YesOrNo.WRONG_PIN


def _parts(payload: bytes) -> tuple[str | bool, str | None]:
    """What was said, and the PIN that JSON brings beside it."""
    value: Any = decode_json(payload)
    if not isinstance(value, dict):
        if isinstance(value, bool):
            return value, None
        return payload[:500].decode("utf-8", "replace"), None
    said = next(
        (value[key] for key in ("answer", "confirm", "text", "payload") if key in value), ""
    )
    pin = value.get("pin", MISSING)
    given = None if pin is MISSING or pin is None else str(pin)
    return (said if isinstance(said, bool) else str(said)), given


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _agreed(text: str) -> bool | None:
    """None: neither yes nor no. One word of refusal is a no, whatever stands beside it."""
    words = _words(text)
    if any(word in _NO or word.startswith("不") for word in words):
        return False
    rest = [word for word in words if word not in _FILLING]
    if rest and all(word in _YES for word in rest):
        return True
    return None


_QUESTIONS = {
    "en": "May I do this: {what}? Answer yes or no.",
    "de": "Soll ich das tun: {what}? Antworte mit ja oder nein.",
    "zh": "要执行这个操作吗：{what}？请回答“是”或“否”。",
}
_WITH_PIN = {
    "en": "May I do this: {what}? Answer yes and the PIN, or no.",
    "de": "Soll ich das tun: {what}? Antworte mit ja und der PIN, oder mit nein.",
    "zh": "要执行这个操作吗：{what}？请回答“是”和 PIN，或者“否”。",
}


def question(language: str, what: str, *, pin: bool) -> str:
    """The built-in question."""
    return (_WITH_PIN if pin else _QUESTIONS)[language].replace("{what}", what)
