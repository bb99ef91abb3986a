"""Errors and attempts → again when, or give up. Tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ErrorKind, ModelError
from service.llm.retry import Decision, GiveUp, Later, RetryPolicy

POLICY = RetryPolicy()


def error(kind: ErrorKind, after: float | None = None) -> ModelError:
    return ModelError("x", code="code", kind=kind, retry_after=after)


@pytest.mark.parametrize(
    ("failure", "repeats"),
    [
        (error(ErrorKind.PASSING), True),
        (error(ErrorKind.PASSING, POLICY.inner_cap), True),
        (error(ErrorKind.PASSING, POLICY.inner_cap + 1), False),  # too long to hold a place
        (error(ErrorKind.RATE), False),
        (error(ErrorKind.ACCOUNT), False),
        (error(ErrorKind.MODEL), False),
        (error(ErrorKind.REQUEST), False),
        (RuntimeError(), False),
    ],
)
def test_what_is_repeated_within_an_attempt(failure: BaseException, repeats: bool) -> None:
    assert POLICY.repeats(failure, 1) is repeats


@given(st.integers(1, 50), st.none() | st.floats(0, 1e6), st.floats(0, 1))
def test_inner_delays_are_bounded_and_honour_retry_after(
    attempt: int, after: float | None, jitter: float
) -> None:
    delay = POLICY.inner_delay(attempt, after, jitter)
    assert 0 < delay <= POLICY.inner_cap
    assert delay >= min(after or 0, POLICY.inner_cap)


def test_inner_delays_grow() -> None:
    delays = [POLICY.inner_delay(attempt, None, 1) for attempt in range(1, 8)]
    assert delays == sorted(delays)
    assert delays[0] == POLICY.inner_first
    assert delays[-1] == POLICY.inner_cap


@given(st.integers(-5, 10_000), st.floats(0, 1))
def test_outer_delays_are_bounded(tries: int, jitter: float) -> None:
    assert 0.75 * POLICY.outer_first <= POLICY.outer_delay(tries, jitter) <= 1.25 * POLICY.outer_cap


def test_outer_delays_double() -> None:
    delays = [POLICY.outer_delay(tries, 0.5) for tries in range(1, 12)]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[-1] == POLICY.outer_cap


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (error(ErrorKind.RATE, 7), 7),
        (error(ErrorKind.RATE, 0), 2),  # "now" means soon, not at once
        (error(ErrorKind.RATE), 2),
        (error(ErrorKind.RATE, 0.001), 0.1),
        (error(ErrorKind.RATE, 86_400), POLICY.retry_after_cap),
        (error(ErrorKind.ACCOUNT), POLICY.account_pause),
        (error(ErrorKind.ACCOUNT, 86_400), POLICY.account_pause),
        (error(ErrorKind.PASSING, 7), None),
        (error(ErrorKind.MODEL), None),
        (error(ErrorKind.REQUEST), None),
    ],
)
def test_how_long_a_provider_is_paused(failure: ModelError, seconds: float | None) -> None:
    assert POLICY.pause(failure) == seconds


@pytest.mark.parametrize(
    ("failure", "tries", "left", "decision"),
    [
        (error(ErrorKind.REQUEST), 1, 900, GiveUp("code")),
        (error(ErrorKind.MODEL), 1, 900, GiveUp("code")),
        (error(ErrorKind.PASSING), 1, 900, Later(1)),
        (error(ErrorKind.PASSING), 3, 900, Later(4)),
        (error(ErrorKind.PASSING, 60), 1, 900, Later(60)),
        (error(ErrorKind.PASSING, 86_400), 1, 900, Later(POLICY.retry_after_cap)),
        (error(ErrorKind.PASSING), 1, 0.5, GiveUp("code")),  # no time for another one
        (error(ErrorKind.PASSING, 60), 1, 30, GiveUp("code")),
        (error(ErrorKind.PASSING), 8, 900, GiveUp("code")),
        (error(ErrorKind.RATE, 5), 8, 900, Later(5, counts=False)),  # waiting is no failure
        (
            error(ErrorKind.RATE, 60),
            1,
            30,
            Later(30, counts=False),
        ),  # to the deadline: it expires
        (error(ErrorKind.ACCOUNT), 8, 900, Later(POLICY.account_pause, counts=False)),
        (error(ErrorKind.ACCOUNT), 1, 5, Later(5, counts=False)),
        # A tool flow goes on after its deadline, but does not wait for a provider there.
        (error(ErrorKind.RATE, 5), 1, 0, GiveUp("code")),
        (error(ErrorKind.ACCOUNT), 1, -60, GiveUp("code")),
        (error(ErrorKind.PASSING), 1, -60, GiveUp("code")),
    ],
)
def test_decide(failure: ModelError, tries: int, left: float, decision: Decision) -> None:
    found = POLICY.decide(failure, tries=tries, max_attempts=8, jitter=0.5, left=left)
    assert found == decision


@given(
    st.sampled_from(ErrorKind),
    st.none() | st.floats(0, 1e9),
    st.integers(1, 100),
    st.floats(0, 1),
    st.floats(-1e6, 1e6),
)
def test_a_decision_never_waits_past_the_deadline_or_without_end(
    kind: ErrorKind, after: float | None, tries: int, jitter: float, left: float
) -> None:
    decision = POLICY.decide(
        error(kind, after), tries=tries, max_attempts=8, jitter=jitter, left=left
    )
    if isinstance(decision, Later):
        assert 0 < decision.delay <= left
        assert decision.counts is (kind is ErrorKind.PASSING)
