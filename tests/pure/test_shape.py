"""Replies as devices can take them."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.answering import reply_text
from service.flows import Flow, parse

LONG = "A very long answer. " * 60


def flow(more: str = "") -> Flow:
    flows, faults = parse(f'[flows.f]\nrequest = "a"\nreply = "b"\n{more}')
    assert flows is not None, [str(fault) for fault in faults]
    return flows.flows["f"]


SAID = [
    ("", "**Hi** 😀", ("**Hi** 😀", False)),
    ("speak = true", "**Hi** 😀", ("Hi", False)),
    ("speak = true", "😀", ("😀", False)),
    ("max_length = 50", LONG, ("A very long answer. A very long answer.", True)),
    ("max_length = 50", "Short.", ("Short.", False)),
    ("speak = true\nmax_length = 16", "**One two.** Three four.", ("One two.", True)),
    ('max_length = 16\nschema = { type = "object" }', LONG, (LONG, False)),
]


@pytest.mark.parametrize(("keys", "text", "said"), SAID)
def test_what_is_said(keys: str, text: str, said: tuple[str, bool]) -> None:
    assert reply_text.said(flow(keys), text) == said


def test_an_incomplete_answer_is_marked_where_there_is_room() -> None:
    assert reply_text.with_ellipsis(flow(), "It was") == "It was …"
    assert reply_text.with_ellipsis(flow("max_length = 20"), "It was a dark night") == (
        "It was a dark night"
    )
    assert reply_text.with_ellipsis(flow(), "It was…") == "It was…"


def test_text_in_pieces() -> None:
    pieces = reply_text.texts(flow("chunk = 200"), LONG)
    assert all(len(piece) <= 200 for piece in pieces)
    assert pieces[0].startswith(b"1/7 A very")
    assert reply_text.texts(flow("chunk = 200"), "Hello.") == (b"1/1 Hello.",)
    assert reply_text.texts(flow(), LONG) == (LONG.encode(),)


@given(st.text(max_size=2000), st.integers(160, 400))
def test_json_in_pieces(text: str, chunk: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    fields = {"id": "0" * 32, "conversation": "x", "text": text, "model": "m", "usage": {}}
    made = flow(f'chunk = {chunk}\nformat = "json"')
    pieces = reply_text.envelopes(made, fields, text)
    assert all(len(piece) <= chunk for piece in pieces)
    read = [orjson.loads(piece) for piece in pieces]
    assert [one["seq"] for one in read] == list(range(1, len(pieces) + 1))
    assert {one["of"] for one in read} == {len(pieces)}
    assert "".join(one["text"] for one in read) == text


def test_a_failure_in_pieces_keeps_its_code() -> None:
    made = flow('chunk = 160\nformat = "json"')
    fields = {"id": "0" * 32, "error": {"code": "limit", "message": "Wait. " * 40}}
    pieces = [orjson.loads(one) for one in reply_text.envelopes(made, fields, "Wait. " * 40)]
    assert len(pieces) > 1
    assert all(one["error"] == {"code": "limit"} for one in pieces)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=500))
def test_deltas_fit(text: str) -> None:
    def envelope(piece: str) -> bytes:
        return orjson.dumps({"id": "0" * 32, "run": 1, "seq": 12, "delta": piece})

    pieces = list(reply_text.deltas(flow("chunk = 160"), text, envelope))
    assert all(len(piece) <= 160 for piece in pieces)
    assert "".join(orjson.loads(piece)["delta"] for piece in pieces) == text
