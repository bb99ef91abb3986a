"""Payload bytes as devices send them → text or a picture. Pure.

Firmware sends the NUL that ends a C string, editors a BOM, older modules the charset of their
country, cameras their picture as base64 in any of its forms.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from service.domain import Message

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
)
# A device names the charset, and Python's codecs hold more than charsets.
_CHARSET = re.compile(
    r"utf-(?:8|16|32)(?:-[lb]e)?|ascii|gb2312|gbk|gb18030|big5(?:hkscs)?|hz|johab|tis-620"
    r"|euc_(?:jp|jis_2004|jisx0213|kr)|shift_jis(?:_2004|x0213)?|cp\d+|iso8859-\d+|koi8-[rtu]"
    r"|mac-(?:roman|cyrillic|greek|latin2|turkish)"
)
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}  # what calls itself GBK often holds more
_PARAMETER = re.compile(r";\s*charset\s*=\s*\"?([\w:.-]+)", re.IGNORECASE)
_DATA_URL = re.compile(rb"data:[\w/+.-]*(?:;[\w=.-]+)*;base64,", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def charset_of(name: str) -> str | None:
    """The codec of a charset that people or devices name, or None if it is none."""
    try:
        found = codecs.lookup(name.strip()).name
    except (LookupError, ValueError):
        return None
    return _WIDER.get(found, found) if _CHARSET.fullmatch(found) else None


def readable(message: Message, charset: str | None = None) -> Message:
    """The message with its payload as plain UTF-8, without BOM and trailing NULs.

    The charset is the one its MQTT 5 content type names, else UTF-8 where the bytes are that,
    else `charset`. Bytes that are none of these stay as they are.
    """
    payload = message.payload
    text = _text(payload, message.content_type, charset)
    if text is None:
        return message
    text = text.removeprefix("\ufeff").rstrip("\0")
    return replace(message, payload=text.encode())


def _text(payload: bytes, content_type: str | None, charset: str | None) -> str | None:
    tried = ["utf-8"]
    if payload[:2] in (b"\xff\xfe", b"\xfe\xff"):
        tried.insert(0, "utf-16")
    named = _PARAMETER.search(content_type or "")
    if named and (declared := charset_of(named[1])):
        tried.insert(0, declared)
    if charset and (known := charset_of(charset)):
        tried.append(known)
    for name in tried:
        try:
            text = payload.decode(name)
            text.encode()
        except UnicodeError:
            continue
        return text
    return None


def picture(payload: bytes) -> tuple[str, bytes] | None:
    """(MIME type, bytes) of a JPEG, PNG, GIF or WebP picture, or None.

    Base64 counts too: as a data URL, wrapped, with the URL alphabet, without padding, quoted.
    """
    kind = _kind(payload)
    if kind is not None:
        return kind, payload
    text = payload.removeprefix(codecs.BOM_UTF8).strip(b"\0 \t\r\n\"'")
    text = text[found.end() :] if (found := _DATA_URL.match(text)) else text
    if b"%" in text:
        text = unquote_to_bytes(text)
    text = b"".join(text.replace(b"\\n", b"").split()).translate(_URL_SAFE).rstrip(b"=")
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    kind = _kind(data)
    return (kind, data) if kind is not None else None


def _kind(data: bytes) -> str | None:
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
