"""Pauses and breakers on a clock of its own."""

from collections.abc import Iterator

import pytest

from service.errors import ErrorKind, ModelError
from service.flows import ModelRef
from service.llm.circuit_breaker import CircuitBreakers
from service.llm.retry import RetryPolicy

POLICY = RetryPolicy()
P, Q = ModelRef("one", "p"), ModelRef("two", "q")
BESIDE_P = ModelRef("one", "beside")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    return Clock()


def error(kind: ErrorKind, after: float | None = None, code: str = "code") -> ModelError:
    return ModelError("why", code=code, kind=kind, retry_after=after)


PASSING = error(ErrorKind.PASSING)


def fail(made: CircuitBreakers, times: int, *, first: int = 0) -> None:
    """Failures of so many requests."""
    for number in range(first, first + times):
        made.enter(P)
        made.failed(P, PASSING, f"r{number}")


def test_an_unknown_provider_is_open(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    assert made.wait(P) == 0
    assert made.states() == []
    assert made.blocked_for([P, Q]) == 0


def test_what_only_asked_to_wait_is_not_broken(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.RATE, 10))
    assert not made.broken(P)
    made.failed(Q, error(ErrorKind.ACCOUNT))
    assert made.broken(Q)
    assert not made.broken(P)
    clock.now += 3600  # nobody asked meanwhile, so nobody knows better
    assert made.broken(Q)
    made.succeeded(Q, made.enter(Q))
    assert not made.broken(Q)


def test_a_model_that_failed_again_and_again_is_broken(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    fail(made, POLICY.break_after - 1)
    assert not made.broken(P)
    fail(made, 1, first=POLICY.break_after)
    assert made.broken(P)
    assert not made.broken(BESIDE_P)


def test_a_rate_limit_holds_every_call_until_its_time(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.RATE, 10))
    assert made.wait(P) == 10
    assert made.wait(Q) == 0
    assert made.blocked_for([P]) == 10
    assert made.blocked_for([P, Q]) == 0
    (state,) = made.states()
    assert (state.model, state.code, state.seconds, state.ok) == ("one/p", "code", 10, True)
    clock.now += 10
    assert made.wait(P) == 0


def test_a_shorter_pause_does_not_shorten_a_longer_one(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.RATE, 60))
    made.failed(P, error(ErrorKind.RATE, 1))
    assert made.wait(P) == 60


def test_an_answer_from_before_the_pause_does_not_end_it(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.RATE, 60))
    made.succeeded(P)
    assert made.wait(P) == 60
    made.failed(P, error(ErrorKind.REQUEST))  # proof of life of an older call
    assert made.wait(P) == 60


def test_a_refused_key_is_a_fault_and_a_rate_limit_is_none(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.ACCOUNT))
    made.failed(Q, error(ErrorKind.RATE, 5))
    assert made.wait(P) == POLICY.account_pause
    found = {(state.provider, state.model): state.ok for state in made.states()}
    assert found == {("one", None): False, ("two", "two/q"): True}
    clock.now += POLICY.account_pause
    assert made.states() == []  # its time is over: the next call will tell


def test_after_its_time_one_call_probes_and_the_others_wait(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.RATE, 5))
    clock.now += 5
    assert made.wait(P) == 0
    made.enter(P)
    assert made.wait(P) > 0
    assert [state.model for state in made.states()] == ["one/p"]
    made.succeeded(P)
    assert made.wait(P) == 0
    assert made.states() == []


def test_a_probe_that_was_cancelled_lets_the_next_one_through(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.RATE, 5))
    clock.now += 5
    made.enter(P)
    made.abandoned(P)
    assert made.wait(P) == 0


def test_the_breaker_opens_after_failures_in_a_row(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    fail(made, POLICY.break_after - 1)
    assert made.wait(P) == 0
    made.succeeded(P)
    fail(made, POLICY.break_after - 1)
    assert made.wait(P) == 0
    fail(made, 1, first=9)
    assert made.wait(P) == POLICY.break_first
    (state,) = made.states()
    assert not state.ok


def test_failed_probes_make_longer_pauses_up_to_a_cap(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    fail(made, POLICY.break_after)
    waits = []
    for number in range(10):
        clock.now += made.wait(P)
        fail(made, 1, first=number)
        waits.append(made.wait(P))
    assert waits[:4] == [4, 8, 16, 32]
    assert waits[-1] == POLICY.break_cap
    clock.now += POLICY.break_cap
    made.enter(P)
    made.succeeded(P)
    fail(made, 1)
    assert made.wait(P) == 0  # all is forgotten


def test_what_was_in_flight_when_it_opened_makes_it_no_longer(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    fail(made, 300)
    assert made.wait(P) == POLICY.break_first


def test_one_request_alone_closes_it_for_nobody(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    for _ in range(50):
        made.enter(P)
        made.failed(P, PASSING, "the same")
    assert made.wait(P) == 0
    made.failed(P, PASSING, "another")  # together with the many before
    assert made.wait(P) == POLICY.break_first


def test_an_error_about_the_question_is_proof_of_life(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    for kind in (ErrorKind.REQUEST, ErrorKind.MODEL):
        fail(made, POLICY.break_after - 1)
        made.failed(P, error(kind))
        fail(made, POLICY.break_after - 1)
        assert made.wait(P) == 0
        made.succeeded(P)


def test_the_last_error_is_remembered_while_it_is_closed(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    assert made.last_error(P) is None
    made.failed(P, error(ErrorKind.ACCOUNT, code="model_quota"))
    last = made.last_error(P)
    assert last is not None
    assert last.code == "model_quota"


def test_a_limit_or_an_outage_belongs_to_one_model(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.RATE, 10))
    assert (made.wait(P), made.wait(BESIDE_P)) == (10, 0)
    fail(made, POLICY.break_after)
    assert made.wait(BESIDE_P) == 0


def test_a_key_or_an_account_belongs_to_the_whole_provider(clock: Clock) -> None:
    made = CircuitBreakers(clock, POLICY)
    made.failed(P, error(ErrorKind.ACCOUNT))
    assert made.wait(P) == made.wait(BESIDE_P) == POLICY.account_pause
    assert made.wait(Q) == 0
    clock.now += POLICY.account_pause
    made.enter(BESIDE_P)  # one looks, for all models
    assert made.wait(P) > 0
    made.failed(BESIDE_P, PASSING)  # it fails, but its key was taken
    assert made.wait(P) == 0
    assert made.states() == []
