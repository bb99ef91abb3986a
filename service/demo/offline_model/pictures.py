"""What can be said of a picture without seeing it: media type, bytes, width and height."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<rest>(?:;[^,;]*)*),", re.ASCII)
# The frame headers of JPEG that hold a size: SOF0 to SOF15 without DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class BadPicture(ValueError):
    """The data: URL can't be decoded."""


@dataclass(frozen=True)
class Picture:
    """One picture of a request; `size` is width and height where the format tells."""

    media_type: str
    length: int
    size: tuple[int, int] | None

    def __str__(self) -> str:
        pixels = f", {self.size[0]}×{self.size[1]} pixels" if self.size else ""
        return f"{self.media_type}, {self.length} bytes{pixels}"


def read(url: str) -> Picture | None:
    """The picture in a data: URL; None for another URL, which can't be fetched offline."""
    if url[:5].lower() != "data:":
        return None
    head = _DATA_URL.match(url)
    if head is None:
        raise BadPicture("the data: URL has no comma or no valid media type")
    body = url[head.end() :]
    if ";base64" in head["rest"].lower():
        try:
            data = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadPicture("the data: URL is not valid base64") from error
    else:
        data = unquote_to_bytes(body)
    return Picture(head["type"] or "text/plain", len(data), size(data))


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF or JPEG."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    return _jpeg(data) if data.startswith(b"\xff\xd8") else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
        elif marker in _FRAMES:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
