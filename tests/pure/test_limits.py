"""What is counted where a flow sets no limit; what a call may take at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.answering.budget import cap_of, micro, most
from service.answering.request_limits import Tally
from service.flows import ModelRef
from service.llm.chat_completions import Question
from service.units import Limit
from tests.fuzz.test_parsers import flow_with

MODEL = ModelRef.parse("gpt-test")
HOUR = 3_600_000


def test_a_tally_counts_each_key_in_its_window() -> None:
    tally, limit = Tally(), Limit(3, 3600.0)
    assert [tally.take("a", limit, 5) for _ in range(4)] == [True, True, True, False]
    assert tally.take("b", limit, 5)
    assert not tally.take("a", limit, HOUR - 1)
    assert tally.take("a", limit, HOUR)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_no_tokenizer_can_make_more_of_a_text(texts: list[str]) -> None:
    messages = tuple({"role": "user", "content": text} for text in texts)
    bound = most(Question(MODEL, messages, max_tokens=7))
    assert bound.completion_tokens == 7
    assert bound.prompt_tokens >= sum(len(text.encode("utf-8", "replace")) for text in texts)


def test_what_else_is_sent_counts() -> None:
    plain = most(Question(MODEL, ({"role": "user", "content": "x"},), cap=100))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"a": "b" * 500}}}
    tools = most(
        Question(MODEL, ({"role": "user", "content": "x"},), {"tools": [tool], "n": 3}, cap=9)
    )
    assert tools.prompt_tokens > plain.prompt_tokens + 500
    assert (plain.completion_tokens, tools.completion_tokens) == (100, 27)
    given_ = most(Question(MODEL, ({"role": "user", "content": "x"},), {"max_tokens": 55}, cap=9))
    assert given_.completion_tokens == 55


def test_a_small_budget_asks_for_short_answers() -> None:
    assert cap_of(flow_with()) == 16_000
    assert cap_of(flow_with("daily_tokens = 8000\n")) == 1_000
    assert [micro(value) for value in (None, 0.0, 0.0000001, 1.5)] == [0, 0, 1, 1_500_000]
