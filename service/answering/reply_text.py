"""A text as its flow wants it on the wire: spoken, cut, in pieces. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from service.answering.chunks import numbered, shortened, size, split
from service.answering.speech import spoken
from service.flows import Flow

_GROWTH = 4  # bytes by which the numbers of an envelope may grow


def said(flow: Flow, text: str) -> tuple[str, bool]:
    """The text as it is remembered and published, and whether `max_length` cut it. What a
    schema has checked stays as it is."""
    if flow.schema is not None:
        return text, False
    if flow.speak:
        text = spoken(text) or text
    if flow.max_length is None:
        return text, False
    short = shortened(text, flow.max_length)
    return short, short != text


def with_ellipsis(flow: Flow, text: str) -> str:
    """The text of an answer that is not complete, marked as such where there is room."""
    if flow.schema is not None or text.endswith("…"):
        return text
    marked = f"{text} …"
    fits = flow.max_length is None or size(marked) <= flow.max_length
    return marked if fits else text


def texts(flow: Flow, text: str) -> tuple[bytes, ...]:
    """The payloads of a text in pieces."""
    if flow.chunk is None:
        return (_utf8(text),)
    return tuple(_utf8(piece) for piece in numbered(_utf8(text).decode(), flow.chunk))


def envelopes(flow: Flow, fields: Mapping[str, Any], text: str) -> tuple[bytes, ...]:
    """The payloads of a JSON reply or failure: `fields` as they are, or its text in pieces."""
    if flow.chunk is None:
        return (orjson.dumps(fields),)
    kept = {key: fields[key] for key in ("id", "error") if key in fields}
    if "error" in kept:
        kept["error"] = {"code": kept["error"]["code"]}
    longest = orjson.dumps({**kept, "seq": 999_999, "of": 999_999, "text": ""})
    pieces = list(split(text, flow.chunk - len(longest), escaped))
    return tuple(
        orjson.dumps({**kept, "seq": at, "of": len(pieces), "text": piece})
        for at, piece in enumerate(pieces, 1)
    )


def deltas(flow: Flow, text: str, envelope: Callable[[str], bytes]) -> Iterator[bytes]:
    """The payloads of a piece of a stream; `envelope` makes one of a text."""
    if flow.chunk is None:
        yield envelope(text)
        return
    room = flow.chunk - len(envelope("")) - _GROWTH
    for piece in split(text, room, escaped):
        yield envelope(piece)


def escaped(text: str) -> int:
    """Bytes of a text within JSON."""
    return len(orjson.dumps(text)) - 2


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
