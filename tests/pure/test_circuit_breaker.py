"""Pauses and breakers on a clock of its own."""

from collections.abc import Iterator

import pytest

from service.errors import ErrorKind, ModelError
from service.llm import circuit_breaker as gates
from service.llm import retry
from service.llm.circuit_breaker import CircuitBreakers


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
        made.enter("p")
        made.failed("p", PASSING, f"r{number}")


def test_an_unknown_provider_is_open(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    assert made.wait("p") == 0
    assert made.states() == []
    assert made.closed(["p", "q"]) == 0


def test_a_rate_limit_holds_every_call_until_its_time(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    made.failed("p", error(ErrorKind.RATE, 10))
    assert made.wait("p") == 10
    assert made.wait("q") == 0
    assert made.closed(["p"]) == 10
    assert made.closed(["p", "q"]) == 0
    (state,) = made.states()
    assert (state.provider, state.code, state.seconds, state.ok) == ("p", "code", 10, True)
    clock.now += 10
    assert made.wait("p") == 0


def test_a_shorter_pause_does_not_shorten_a_longer_one(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    made.failed("p", error(ErrorKind.RATE, 60))
    made.failed("p", error(ErrorKind.RATE, 1))
    assert made.wait("p") == 60


def test_an_answer_from_before_the_pause_does_not_end_it(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    made.failed("p", error(ErrorKind.RATE, 60))
    made.succeeded("p")
    assert made.wait("p") == 60
    made.failed("p", error(ErrorKind.REQUEST))  # proof of life of an older call
    assert made.wait("p") == 60


def test_a_refused_key_is_a_fault_and_a_rate_limit_is_none(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    made.failed("p", error(ErrorKind.ACCOUNT))
    made.failed("q", error(ErrorKind.RATE, 5))
    assert made.wait("p") == retry.ACCOUNT_PAUSE
    assert {state.provider: state.ok for state in made.states()} == {"p": False, "q": True}
    clock.now += retry.ACCOUNT_PAUSE
    assert made.states() == []  # its time is over: the next call will tell


def test_after_its_time_one_call_probes_and_the_others_wait(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    made.failed("p", error(ErrorKind.RATE, 5))
    clock.now += 5
    assert made.wait("p") == 0
    made.enter("p")
    assert made.wait("p") > 0
    assert [state.provider for state in made.states()] == ["p"]
    made.succeeded("p")
    assert made.wait("p") == 0
    assert made.states() == []


def test_a_probe_that_was_cancelled_lets_the_next_one_through(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    made.failed("p", error(ErrorKind.RATE, 5))
    clock.now += 5
    made.enter("p")
    made.left("p")
    assert made.wait("p") == 0


def test_the_breaker_opens_after_failures_in_a_row(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    fail(made, gates.BREAK_AFTER - 1)
    assert made.wait("p") == 0
    made.succeeded("p")
    fail(made, gates.BREAK_AFTER - 1)
    assert made.wait("p") == 0
    fail(made, 1, first=9)
    assert made.wait("p") == gates.BREAK_FIRST
    (state,) = made.states()
    assert not state.ok


def test_failed_probes_make_longer_pauses_up_to_a_cap(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    fail(made, gates.BREAK_AFTER)
    waits = []
    for number in range(10):
        clock.now += made.wait("p")
        fail(made, 1, first=number)
        waits.append(made.wait("p"))
    assert waits[:4] == [4, 8, 16, 32]
    assert waits[-1] == gates.BREAK_CAP
    clock.now += gates.BREAK_CAP
    made.enter("p")
    made.succeeded("p")
    fail(made, 1)
    assert made.wait("p") == 0  # all is forgotten


def test_what_was_in_flight_when_it_opened_makes_it_no_longer(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    fail(made, 300)
    assert made.wait("p") == gates.BREAK_FIRST


def test_one_request_alone_closes_it_for_nobody(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    for _ in range(50):
        made.enter("p")
        made.failed("p", PASSING, "the same")
    assert made.wait("p") == 0
    made.failed("p", PASSING, "another")  # together with the many before
    assert made.wait("p") == gates.BREAK_FIRST


def test_an_error_about_the_question_is_proof_of_life(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    for kind in (ErrorKind.REQUEST, ErrorKind.MODEL):
        fail(made, gates.BREAK_AFTER - 1)
        made.failed("p", error(kind))
        fail(made, gates.BREAK_AFTER - 1)
        assert made.wait("p") == 0
        made.succeeded("p")


def test_the_last_error_is_remembered_while_it_is_closed(clock: Clock) -> None:
    made = CircuitBreakers(clock)
    assert made.last_error("p") is None
    made.failed("p", error(ErrorKind.ACCOUNT, code="model_quota"))
    last = made.last_error("p")
    assert last is not None
    assert last.code == "model_quota"
