"""Errors and attempts → again when, or give up. Tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Blame, ModelError
from service.llm import retry
from service.llm.retry import Again, GiveUp


def error(blame: Blame, after: float | None = None) -> ModelError:
    return ModelError("x", code="code", blame=blame, retry_after=after)


@pytest.mark.parametrize(
    ("failure", "repeats"),
    [
        (error(Blame.PASSING), True),
        (error(Blame.PASSING, retry.INNER_CAP), True),
        (error(Blame.PASSING, retry.INNER_CAP + 1), False),  # too long to hold a place
        (error(Blame.RATE), False),
        (error(Blame.ACCOUNT), False),
        (error(Blame.MODEL), False),
        (error(Blame.REQUEST), False),
        (RuntimeError(), False),
    ],
)
def test_what_is_repeated_within_an_attempt(failure: BaseException, repeats: bool) -> None:
    assert retry.repeat_inside(failure) is repeats


@given(st.integers(1, 50), st.none() | st.floats(0, 1e6), st.floats(0, 1))
def test_inner_delays_are_bounded_and_honour_retry_after(
    attempt: int, after: float | None, jitter: float
) -> None:
    delay = retry.inner_delay(attempt, after, jitter)
    assert 0 < delay <= retry.INNER_CAP
    assert delay >= min(after or 0, retry.INNER_CAP)


def test_inner_delays_grow() -> None:
    delays = [retry.inner_delay(attempt, None, 1) for attempt in range(1, 8)]
    assert delays == sorted(delays)
    assert delays[0] == retry.INNER_FIRST
    assert delays[-1] == retry.INNER_CAP


@given(st.integers(-5, 10_000), st.floats(0, 1))
def test_outer_delays_are_bounded(tries: int, jitter: float) -> None:
    assert 0.75 * retry.OUTER_FIRST <= retry.outer_delay(tries, jitter) <= 1.25 * retry.OUTER_CAP


def test_outer_delays_double() -> None:
    delays = [retry.outer_delay(tries, 0.5) for tries in range(1, 12)]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[-1] == retry.OUTER_CAP


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (error(Blame.RATE, 7), 7),
        (error(Blame.RATE, 0), 2),  # "now" means soon, not at once
        (error(Blame.RATE), 2),
        (error(Blame.RATE, 0.001), 0.1),
        (error(Blame.RATE, 86_400), retry.RETRY_AFTER_CAP),
        (error(Blame.ACCOUNT), retry.ACCOUNT_PAUSE),
        (error(Blame.ACCOUNT, 86_400), retry.ACCOUNT_PAUSE),
        (error(Blame.PASSING, 7), None),
        (error(Blame.MODEL), None),
        (error(Blame.REQUEST), None),
    ],
)
def test_how_long_a_provider_is_paused(failure: ModelError, seconds: float | None) -> None:
    assert retry.pause(failure) == seconds


@pytest.mark.parametrize(
    ("failure", "tries", "left", "decision"),
    [
        (error(Blame.REQUEST), 1, 900, GiveUp("code")),
        (error(Blame.MODEL), 1, 900, GiveUp("code")),
        (error(Blame.PASSING), 1, 900, Again(1)),
        (error(Blame.PASSING), 3, 900, Again(4)),
        (error(Blame.PASSING, 60), 1, 900, Again(60)),
        (error(Blame.PASSING, 86_400), 1, 900, Again(retry.RETRY_AFTER_CAP)),
        (error(Blame.PASSING), 1, 0.5, GiveUp("code")),  # no time for another one
        (error(Blame.PASSING, 60), 1, 30, GiveUp("code")),
        (error(Blame.PASSING), 8, 900, GiveUp("code")),
        (error(Blame.RATE, 5), 8, 900, Again(5, counts=False)),  # waiting is no failure
        (error(Blame.RATE, 60), 1, 30, Again(30, counts=False)),  # to the deadline: it expires
        (error(Blame.ACCOUNT), 8, 900, Again(retry.ACCOUNT_PAUSE, counts=False)),
        (error(Blame.ACCOUNT), 1, 5, Again(5, counts=False)),
        # A tool flow goes on after its deadline, but does not wait for a provider there.
        (error(Blame.RATE, 5), 1, 0, GiveUp("code")),
        (error(Blame.ACCOUNT), 1, -60, GiveUp("code")),
        (error(Blame.PASSING), 1, -60, GiveUp("code")),
    ],
)
def test_decide(failure: ModelError, tries: int, left: float, decision: retry.Decision) -> None:
    found = retry.decide(failure, tries=tries, max_attempts=8, jitter=0.5, left=left)
    assert found == decision


@given(
    st.sampled_from(Blame),
    st.none() | st.floats(0, 1e9),
    st.integers(1, 100),
    st.floats(0, 1),
    st.floats(-1e6, 1e6),
)
def test_a_decision_never_waits_past_the_deadline_or_without_end(
    blame: Blame, after: float | None, tries: int, jitter: float, left: float
) -> None:
    decision = retry.decide(
        error(blame, after), tries=tries, max_attempts=8, jitter=jitter, left=left
    )
    if isinstance(decision, Again):
        assert 0 < decision.delay <= left
        assert decision.counts is (blame is Blame.PASSING)
