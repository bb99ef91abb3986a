"""What stands in a message's content: parts, and JSON within words. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from service.llm.json_within import documents, end_of
from service.llm.markup import Separated, separate

_THINKER = re.compile(
    r"(?:^|[^a-z])(?:r1|qwq|qvq|z1|think\w*|reason\w*|magistral|openthinker|deepscaler|minimax-m\d)"
    r"(?:[^a-z]|$)",
    re.IGNORECASE,
)


def thinks(model: str) -> bool:
    """Whether a model's name says that its text may begin inside its reasoning."""
    return _THINKER.search(model) is not None


def content_of(content: Any) -> Separated:
    """A message's or a delta's `content`, text or a list of parts, as it was sent.

    The text still has to be separated. Raises TypeError for what is no content.
    """
    if content is None:
        return Separated("")
    if isinstance(content, str):
        return Separated(content)
    if not isinstance(content, list):
        raise TypeError("content")
    text: list[str] = []
    reasoning: list[str] = []
    for part in content:
        if isinstance(part, str):
            text.append(part)
        elif not isinstance(part, dict):
            raise TypeError("content part")
        elif part.get("type") in ("thinking", "reasoning", "reasoning_text", "summary_text"):
            reasoning.append(_words(part))
        elif part.get("type", "text") in ("text", "output_text"):
            text.append(_words(part))
    return Separated("".join(text), "".join(reasoning))


def _words(part: Any) -> str:
    """All text within a part: servers nest it in different ways."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(_words(one) for one in part)
    if isinstance(part, dict):
        keys = ("text", "thinking", "reasoning", "value", "content", "summary")
        return next((_words(part[key]) for key in keys if part.get(key)), "")
    return ""


_FENCED = re.compile(r"```[^\n`]*\n(.*?)```|```(?:json)?(.*?)```", re.DOTALL | re.IGNORECASE)
_MOST = 50  # documents of one answer that are looked at


def documents_of(text: str) -> Iterator[str]:
    """The JSON documents of an answer, likeliest first: all of it, those in code
    fences, those within its sentences. Reasoning is none of it."""
    text = separate(text).text
    whole = (text, *(found[1] or found[2] or "" for found in _FENCED.finditer(text)))
    seen = set()
    for document in (*(one for body in whole if (one := _document(body))), *_within(text)):
        if document not in seen:
            seen.add(document)
            yield document


def json_of(text: str) -> str | None:
    """The JSON document of an answer as it is written there, or None."""
    return next(documents_of(text), None)


def _document(body: str) -> str | None:
    body = body.strip()
    return body if end_of(body, 0)[1] == len(body) else None


def _within(text: str) -> Iterator[str]:
    for _, start, end in itertools.islice(documents(text), _MOST):
        yield text[start:end]
