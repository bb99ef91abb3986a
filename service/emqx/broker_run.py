"""One run over the broker: what is done, what is left, and trying again what passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from service.emqx.plan import Do, Step
from service.errors import BrokerError, EmqxGptError

PASSING = frozenset({"broker_unreachable", "broker_timeout", "broker_unavailable"})
Tell = Callable[[str], None]


@dataclass(slots=True)
class RunReport:
    """What a run did, in plain words; `not_done` is what an error left undone."""

    done: list[str] = field(default_factory=list)
    not_done: list[str] = field(default_factory=list)


class ApplyError(EmqxGptError):
    """A run that could not go on; `code` is that of its cause."""

    def __init__(self, cause: EmqxGptError, report: RunReport) -> None:
        super().__init__(cause.message, code=cause.code)
        self.report = report


class Run:
    """Keeps account of what is done and tells it as it happens."""

    def __init__(self, tell: Tell) -> None:
        self.steps: list[Step] = []
        self.report = RunReport()
        self._tell = tell

    async def carry_out(self, item: Step, work: Awaitable[object]) -> None:
        await work
        self.report.done.append(_past(item))
        self._tell(_past(item))
        self.steps.remove(item)

    def report_left(self) -> RunReport:
        self.report.not_done = [f"{item.do.value} {item}" for item in self.steps]
        return self.report


_PAST = {Do.CREATE: "created", Do.CHANGE: "changed", Do.DELETE: "deleted"}


def _past(item: Step) -> str:
    return f"{_PAST[item.do]} {item}"


async def retrying(call: Callable[..., Awaitable[object]], *args: object) -> object:
    return await AsyncRetrying(
        retry=retry_if_exception(lambda e: isinstance(e, BrokerError) and e.code in PASSING),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_attempt(4),
        reraise=True,
    )(call, *args)
