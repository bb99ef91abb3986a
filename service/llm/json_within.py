"""JSON that stands within words, found in time linear in the text. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from service.bodies import too_deep

_BEGINS = re.compile(r"[{\[]")
_STARTS = 50  # places where a document may begin, and none does


def end_of(text: str, at: int) -> tuple[Any, int | None]:
    """(the document that begins at `at`, where it ends); `at` itself if there is none; None if
    it is cut off, or nested past reason."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        cut = not text[error.pos : error.pos + 1000].strip()
        return None, None if cut or error.msg.startswith("Unterminated string") else at
    except RecursionError:
        return None, None
    except ValueError:
        return None, at


def documents(text: str) -> Iterator[tuple[Any, int, int]]:
    """The objects and lists in it, each with where it begins and ends."""
    at = missed = 0
    while missed < _STARTS and (found := _BEGINS.search(text, at)) is not None:
        start = found.start()
        value, end = end_of(text, start)
        if end is None:
            return  # cut off: what stands inside is a part of it
        if end > start and not too_deep(text[start:end]):
            yield value, start, end
        missed += end == start
        at = max(end, start + 1)


def _no_number(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_no_number)
