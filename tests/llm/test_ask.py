"""Asking through breakers, retries and fallback: against a scripted server, with a policy of
its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from service.domain import Usage
from service.errors import ErrorKind, ModelError
from service.flows import Edition, Flows, ModelRef, Provider
from service.flows.tables import Price
from service.llm.asker import Asker
from service.llm.attempts import Log
from service.llm.circuit_breaker import CircuitBreakers
from service.llm.client import Gpt, Question
from service.llm.prices import Prices
from service.llm.retry import RetryPolicy
from tests.fakes.model import FakeModel, delay, empty, hang, ok, status, stream_then_cut

QUICK = RetryPolicy(inner_first=0.01, account_pause=0.2, break_first=0.2)
FIRST, SECOND = ModelRef("openai", "first"), ModelRef("openai", "second")


@dataclass
class House:
    """An Asker on one server that tests script."""

    server: FakeModel
    asker: Asker
    breakers: CircuitBreakers
    heard: list[tuple[str, str, Usage]] = field(default_factory=list)
    log: Log = field(default_factory=lambda: Log("r1", lambda: 0))

    async def ask(self, *fallback: ModelRef, left: float = 20, who: str = "r1", **options):
        self.log = Log(who, lambda: 0)
        question = Question(FIRST, ({"role": "user", "content": "hi"},))
        return await self.asker.ask(question, fallback, self.log, left=left, **options)

    @property
    def results(self) -> list[tuple[str, str]]:
        return [(attempt.model, attempt.result) for attempt in self.log.attempts]


@pytest.fixture
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    policy = getattr(request, "param", QUICK)
    async with FakeModel() as server:
        servers = {"openai": Provider(name="openai", base_url=server.base_url)}
        gpt = Gpt(Edition(Flows({}, servers, {})), concurrency=8)
        breakers = CircuitBreakers(time.monotonic, policy)
        heard: list[tuple[str, str, Usage]] = []
        asker = Asker(
            gpt,
            breakers,
            on_call=lambda model, result, seconds, usage: heard.append((str(model), result, usage)),
            policy=policy,
            prices=Prices({"first": Price(input=1.0, output=1.0)}, {}),
        )
        try:
            yield House(server, asker, breakers, heard)
        finally:
            await gpt.close()


async def test_what_passes_is_repeated_and_every_call_is_noted(house: House) -> None:
    house.server.script(status(500), status(503), ok("well", usage=(3, 4)))
    assert (await house.ask()).text == "well"
    failed = ("first", "model_unavailable")
    assert house.results == [failed, failed, ("first", "ok")]
    assert [result for _, result, _ in house.heard] == [result for _, result in house.results]
    assert house.log.usage == house.heard[-1][2] == Usage(3, 4, cost=7e-6)


async def test_a_model_gets_so_many_tries_and_then_the_next_one_is_asked(house: House) -> None:
    house.server.behave(lambda body: status(500) if body["model"] == "first" else "well")
    assert (await house.ask(SECOND)).text == "well"
    assert house.results == [("first", "model_unavailable")] * 3 + [("second", "ok")]


@pytest.mark.parametrize("house", [RetryPolicy(inner_attempts=1)], indirect=True)
async def test_the_policy_says_how_often(house: House) -> None:
    house.server.script(status(500), ok("never asked"))
    with pytest.raises(ModelError):
        await house.ask()
    assert len(house.server.calls) == 1


@pytest.mark.parametrize("code", [401, 404, 429])
async def test_what_does_not_pass_at_once_is_not_repeated(house: House, code: int) -> None:
    house.server.script(status(code))
    house.server.script(ok("well"))
    with pytest.raises(ModelError) as caught:
        await house.ask()
    assert caught.value.status == code
    assert len(house.server.calls) == 1


async def test_what_time_may_mend_is_raised_before_what_it_can_not(house: House) -> None:
    house.server.behave(lambda body: status(429 if body["model"] == "first" else 404))
    with pytest.raises(ModelError) as caught:
        await house.ask(SECOND)
    assert caught.value.kind is ErrorKind.RATE


async def test_a_paused_model_is_not_called_and_its_fallback_on_the_same_server_is(
    house: House,
) -> None:
    house.breakers.failed(FIRST, ModelError("wait", code="x", kind=ErrorKind.RATE, retry_after=60))
    assert (await house.ask(SECOND)).text == "echo: hi"
    assert house.results == [("second", "ok")]
    with pytest.raises(ModelError) as caught:
        await house.ask()
    assert (caught.value.kind, caught.value.message) == (ErrorKind.RATE, "wait")
    assert caught.value.retry_after == pytest.approx(60, abs=5)


async def test_an_account_without_money_pauses_all_models_of_its_provider(house: House) -> None:
    house.server.script(status(402))
    with pytest.raises(ModelError) as caught:
        await house.ask(SECOND)
    assert caught.value.code == "model_quota"
    assert len(house.server.calls) == 1


@pytest.mark.parametrize("house", [RetryPolicy(inner_first=0.01, break_after=2)], indirect=True)
async def test_no_call_is_made_any_more_once_the_breaker_has_opened(house: House) -> None:
    house.server.behave(lambda body: status(500))
    with pytest.raises(ModelError):
        await house.ask(who="r1")
    with pytest.raises(ModelError) as caught:
        await house.ask(who="r2")
    assert len(house.server.calls) == 4  # the second request's first failure opened it
    assert caught.value.kind is ErrorKind.PASSING  # its own failure, which counts


async def test_the_whole_ends_in_time(house: House) -> None:
    house.server.behave(lambda body: hang())
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        await house.ask(SECOND, left=0.3)
    assert caught.value.code == "model_timeout"
    assert 0.25 < time.monotonic() - began < 5
    assert len(house.server.calls) == 1


async def test_who_listens_hears_when_a_model_begins_again(house: House) -> None:
    said: list[str] = []
    heard = asyncio.Event()

    async def on_delta(text: str) -> None:
        said.append(text)
        if "".join(said) == "one two":
            heard.set()

    house.server.script(stream_then_cut("one two three", 2, heard), delay(0.01, ok("well said")))
    completion = await house.ask(on_delta=on_delta, on_restart=lambda: said.append("|"))
    assert completion.text == "well said"
    assert "".join(said) == "one two|well said"


async def test_every_answer_is_paid_for_also_the_unusable_one(house: House) -> None:
    house.server.script(empty(), ok("well", usage=(300_000, 200_000)))
    assert (await house.ask()).text == "well"
    assert [result for _, result, _ in house.heard] == ["model_empty", "ok"]
    unusable = house.heard[0][2]
    assert unusable.prompt_tokens > 0
    assert unusable.cost is not None
    assert house.log.usage.cost == pytest.approx(unusable.cost + 0.5)
