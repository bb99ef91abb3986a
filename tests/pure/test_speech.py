"""What a loudspeaker says of an answer, and how answers fit small devices."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.answering.chunks import numbered, shortened, size
from service.answering.speech import Speaking, spoken

SAID = [
    ("Hello Ann.", "Hello Ann."),
    ("**Tomorrow**:\n\n1. *sunny* ☀️\n2. `22 °C`", "Tomorrow: sunny. 22 °C."),
    ("Hello **Ann**! 😀👍🏽 🇩🇪", "Hello Ann!"),
    ("See [the docs](https://a.b/c).", "See the docs."),
    ("See https://www.emqx.io/x?y. Bye.", "See emqx.io. Bye."),
    ("![a door](https://a.b/c.png)", "a door"),
    ("# Weather\n\nSunny.\n\n---\n\nBye.", "Weather. Sunny. Bye."),
    ("#天气\n##明天", "天气 明天"),
    ("# 天气\n\n- **晴** ☀️\n- 22 °C\n\n明天见", "天气。晴。22 °C. 明天见"),
    ("**天气：**晴，22 °C。", "天气：晴，22 °C。"),
    ("- [x] done\n- [ ] open", "done. open."),
    ("• one\n• two", "one. two."),
    (
        "| Room | T |\n|--|--|\n| Kitchen | 21 °C |\n| Bath | 23 °C |",
        "Kitchen: 21 °C. Bath: 23 °C.",
    ),
    ("| R | T | H |\n|--|--|--|\n| Bath | 23 °C | 40 % |", "Bath: T 23 °C, H 40 %."),
    ("```\n22 °C\n```", "22 °C."),
    ("Hi <b>Ann</b>,<br>bye &amp; thanks", "Hi Ann, bye & thanks"),
    ("As said [1], and 【3†source】so on[^2].", "As said, and so on."),
    ("Line one\nline two", "Line one line two"),
    ("一行\n两行", "一行两行"),
    ("It is :sunny: today", "It is today"),
    ("**unclosed and `open", "unclosed and open"),
]
KEPT = [  # numbers, units, and what is no Markdown
    "It is -5 °C, 1,013.25 hPa, 40 % and 3.5 m/s at 10:30.",
    "24. Dezember ist Heiligabend.",
    "> 40 °C is hot.",
    "1 < 2, a * b, snake_case and #1.",
    "$5 and €3.50 for ½ l.",
    "2026. That was the year.",
]


@pytest.mark.parametrize(("text", "said"), SAID)
def test_what_is_said(text: str, said: str) -> None:
    assert spoken(text) == said


@pytest.mark.parametrize("text", KEPT)
def test_numbers_and_units_stay(text: str) -> None:
    assert spoken(text) == text


def test_products_are_no_emphasis() -> None:
    assert spoken("2*3*4 = 24") == "2 × 3 × 4 = 24"


def test_dates_in_a_list_keep_their_numbers() -> None:
    assert spoken("1. Januar: Neujahr\n6. Januar: Dreikönig") == (
        "1. Januar: Neujahr. 6. Januar: Dreikönig."
    )


@given(st.text() | st.text(alphabet="*_`#- 1.)[](|\n>~:a好。<&"))
def test_whatever_comes_is_said_in_one_plain_line(text: str) -> None:
    said = spoken(text)
    assert "\n" not in said
    assert "**" not in said
    assert "`" not in said
    assert "http://" not in said
    assert said == said.strip()


LONG = "The first sentence. The second one is longer! 第三句。And a fourth."
CUT = [
    (LONG, 1000, LONG),
    (LONG, 50, "The first sentence. The second one is longer!"),
    (LONG, 20, "The first sentence."),
    (LONG, 58, "The first sentence. The second one is longer! 第三句。"),
    (LONG, 10, "The…"),
    ("It is 3.5 degrees outside", 12, "It is 3.5…"),
    ("今天天气晴朗。明天下雨。", 24, "今天天气晴朗。"),
    ("今天天气晴朗，明天下雨", 14, "今天天…"),
    ("Superlongword", 8, "Super…"),
    ("One\nTwo three", 6, "One"),
]


@pytest.mark.parametrize(("text", "limit", "kept"), CUT)
def test_a_long_answer_is_cut_at_a_sentence(text: str, limit: int, kept: str) -> None:
    assert shortened(text, limit) == kept


EMOJI = "👩‍👩‍👧‍👧"


@given(st.text(alphabet="ab .。好é😀\u0301\n" + EMOJI), st.integers(8, 60))
def test_what_is_cut_fits_and_is_utf8(text: str, limit: int) -> None:
    kept = shortened(text, limit)
    assert size(kept) <= limit
    assert text.startswith(kept.removesuffix("…"))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(32, 200))
def test_pieces_fit_are_numbered_and_make_the_text(text: str, limit: int) -> None:
    pieces = numbered(text, limit)
    for at, piece in enumerate(pieces, 1):
        assert len(piece.encode()) <= limit
        assert piece.startswith(f"{at}/{len(pieces)} ")
    assert "".join(re.sub(r"\A\d+/\d+ ", "", piece) for piece in pieces) == text


def test_words_stay_whole() -> None:
    pieces = numbered("A very long answer. " * 60, 200)
    assert all(piece.endswith(" ") for piece in pieces[:-1])
    assert len(pieces) == 7


def test_what_is_seen_as_one_character_is_not_torn() -> None:
    family = EMOJI * 5
    assert all(piece.split(" ")[1] == EMOJI for piece in numbered(family, 34))


def test_a_long_text_is_split_in_time() -> None:
    assert len(numbered("word " * 200_000, 64)) > 10_000


@pytest.mark.parametrize(
    "text", [row[0] for row in SAID] + KEPT + ["One. **Two. Three** four. Five"]
)
def test_a_stream_says_the_same(text: str) -> None:
    speaking, said = Speaking(), ""
    for char in text:
        said += speaking.feed(char)
    rest, anew = speaking.end()
    whole = spoken(text) or text.strip()
    assert (rest if anew else said + rest) == whole


def test_a_stream_says_whole_sentences_at_once() -> None:
    speaking = Speaking()
    assert speaking.feed("It is **sunny**.") == ""
    assert speaking.feed(" And") == ""
    assert speaking.feed(" warm. ") == "It is sunny. And warm."
    assert speaking.feed("22 °C") == ""
    assert speaking.end() == (" 22 °C", False)
