"""Patterns mean what they mean in Python, and their time grows with the text alone."""

from __future__ import annotations

import re
import warnings

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.flows.regex import Regex, in_schema

PATTERNS = [
    *(r"\bhey\b", r"\Bx", r"^a", r"(.*机器人)", r"\bÖffne\b.*?tür\b", r"[^\W\d_]+", r"[\w-]+x"),
    *(r"\d{2,3}", r"a{,3}b", r"(?i)é", r"[\[a]", r"[]a]", r"\u00e9", r"\N{SNOWMAN}", r"x\Z"),
    *(r"(?P<w>hey|hi)\s+\w+", r"(?m)^b$", r"[^a]b", r"\S+", r"a|\bb", r"[\b]", r"\.\-\_"),
    *(r"(?#c)a", r"\Sa\b", r"[\D]\b", r"(a+)+b", r"(?s:.)b", r"\x41\0?", r"\D\W\S", r"x*?\b"),
    *(r"[\u4e00-\u9fff]+", r"(?u)a", r"(?:a|b)*c", r"\101", r"[\W]x", r"a{}", r"a{1}?"),
]
TEXTS = st.lists(
    st.sampled_from(
        [
            *"ab xXÖöé-_1٣\n\rA\x08.[]☃{}",
            "hey",
            "hey bot",
            "Öffne die tür",
            "aab",
            "机器人",
            "\u2003",
        ]
    ),
    max_size=9,
).map("".join)


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=25, deadline=None)
@given(text=TEXTS)
def test_a_pattern_finds_what_it_finds_in_python(pattern: str, text: str) -> None:
    found = re.search(pattern, text, re.DOTALL | re.IGNORECASE)
    assert Regex(pattern).search(text) == (found.span() if found else None)


@pytest.mark.parametrize("pattern", [*PATTERNS, "^a$", r"\S+$"])
@settings(max_examples=25, deadline=None)
@given(text=TEXTS)
def test_a_schemas_pattern_fits_what_it_fits_in_python(pattern: str, text: str) -> None:
    engine = jsonschema_rs.RegexOptions()
    schema = {"pattern": in_schema(pattern)}
    fits = jsonschema_rs.Draft202012Validator(schema, pattern_options=engine).is_valid(text)
    assert fits == (re.search(pattern, text) is not None)


@pytest.mark.parametrize("text", ["a\n", "a", "ba\n\n", "\n"])
def test_the_end_may_have_a_line_end_after_it(text: str) -> None:
    assert (Regex("a$").search(text) is None) == (re.search("a$", text) is None)


def test_lone_surrogates_and_the_marks_own_characters_are_any_text() -> None:
    assert Regex("b").search("\ud800b") == (1, 2)
    assert Regex(r"\bb").search("\ufdd0\ud800 b") == (3, 4)
    assert Regex(r"\ba").search("x\ufdd0a") == (2, 3)


def test_reading_a_pattern_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Regex("[[a]").search("[") == (0, 1)
