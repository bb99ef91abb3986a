"""What people hear in place of a reply: the flow's own words, or built-in ones. Pure."""

from __future__ import annotations

import re

from service.flows import Flow

_ABOUT = {  # error codes → keys of `messages`; all others are `failed`
    "limit": "limit",
    "daily_tokens": "tokens",
    "expired": "late",
    "model_filtered": "refused",
    "undecodable": "not_text",
    "not_json": "not_json",
    "not_an_image": "not_image",
    "forgotten": "forgotten",
}
# Errors have English words of their own.
_BUILT_IN = {
    "en": {"forgotten": "OK, our conversation so far is forgotten."},
    "de": {
        "failed": "Das kann ich gerade nicht beantworten, bitte später noch einmal fragen.",
        "limit": "Zu viele Anfragen, bitte kurz warten.",
        "tokens": "Das Kontingent für heute ist aufgebraucht.",
        "late": "Die Antwort kam nicht rechtzeitig, bitte noch einmal fragen.",
        "refused": "Das Modell hat die Frage abgelehnt.",
        "not_text": "Der Text kam unleserlich an: Er ist kein UTF-8.",
        "not_json": "Die Nachricht ist kein JSON.",
        "not_image": "Die Nachricht ist kein Bild (JPEG, PNG, GIF oder WebP).",
        "forgotten": "In Ordnung, unser Gespräch bis hierhin ist vergessen.",
    },
    "zh": {
        "failed": "暂时无法回答，请稍后再试。",
        "limit": "请求太多，请稍等一会儿。",
        "tokens": "今天的用量已经用完。",
        "late": "没能及时回答，请再问一次。",
        "refused": "模型拒绝回答这个问题。",
        "not_text": "收到的文字无法识别：不是 UTF-8 编码。",
        "not_json": "收到的消息不是 JSON。",
        "not_image": "收到的消息不是图片（JPEG、PNG、GIF 或 WebP）。",
        "forgotten": "好的，之前的对话我已经忘记了。",
    },
}
_HAN = re.compile(r"[\u3400-\u9fff]")
_OTHER_CJK = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")  # Japanese, Korean
_UMLAUT = re.compile(r"[äöüß]", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")
_GERMAN = frozenset(
    _WORD.findall(
        "aber auf aus bei bin bist bitte das dass dein dem den der des die du ein eine einen"
        " er es für gib haben heute ich im ist ja kann kannst kein licht mach mein mir mit"
        " nach nicht noch oder sag sich sie sind über um und uns von vom wann warum was"
        " welche wenn wer werde wie wir wird wo zu zum zur"
    )
)
_LOOKED_AT = 2000  # characters


def sentence(flow: Flow, about: str, text: str) -> str | None:
    """What is said about an error, by its code; None: in English, the error's own words.
    `text` is the message, whose language counts where the flow names none."""
    key = _ABOUT.get(about, "failed")
    own: str | None = getattr(flow.messages, key) if flow.messages is not None else None
    built_in = _BUILT_IN[language(flow, text)]
    return own or built_in.get(key) or built_in.get("failed")


def language(flow: Flow, text: str) -> str:
    """The language of a flow's sentences: the one it names, else that of the message, else
    that of its own words, else English."""
    if flow.language != "auto":
        return flow.language
    own = (flow.on_error, flow.prompt, flow.system)
    texts = (text, *(template.text for template in own if template is not None))
    return next((found for one in texts if (found := _spoken_in(one))), "en")


def _spoken_in(text: str) -> str | None:
    """Chinese or German, where the text shows it."""
    text = text[:_LOOKED_AT]
    if _OTHER_CJK.search(text):
        return None
    if _HAN.search(text):
        return "zh"
    words = [word.casefold() for word in _WORD.findall(text)]
    german = sum(word in _GERMAN for word in words)
    enough = german * 4 >= len(words) and german >= (1 if _UMLAUT.search(text) else 2)
    return "de" if words and enough else None
