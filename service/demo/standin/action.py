"""EMQX's HTTP connector and HTTP action: their states, buffers and counters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from urllib.parse import quote

from service.demo.standin.buffer import Limits, Outcome, Query, Worker
from service.demo.standin.published import Message
from service.demo.standin.raw_http import Pool, Target
from service.demo.standin.resource_config import Settings
from service.demo.standin.template import render
from service.rulesql import to_json

log = logging.getLogger(__name__)

_DROPPED = {
    Outcome.EXPIRED: "dropped.expired",
    Outcome.OVERFLOW: "dropped.queue_full",
}
GAUGES = 5.0  # seconds between two readings of what is queued and in flight
_HINT = "EMQX sends again only after 503, 429 and lost connections"
_HINTS = {
    "status 401": "the token in the connector's headers is not the webhook's WEBHOOK_TOKEN",
    "status 404": "the connector's url or the action's path is wrong",
    "status 413": "the webhook's MAX_BODY is too small",
}
_METRICS = (
    "dropped dropped.expired dropped.other dropped.queue_full dropped.resource_not_found"
    " dropped.resource_stopped failed inflight late_reply matched queuing queuing_bytes rate"
    " rate_last5m rate_max received retried success"
)
_IN_PATH = "/?&=%:@,;+$!*'()~"


class Connector:
    """Connections to one server, and whether it was there at the last health check."""

    def __init__(self, name: str, conf: Settings) -> None:
        self.name = name
        self.conf = conf
        self.target = Target.parse(str(conf["url"]))
        self.status = "disconnected"
        self.status_reason = ""
        self.outages = 0
        self.pool: Pool | None = None
        self._monitor: asyncio.Task[None] | None = None
        self._interval = conf.seconds("resource_opts", "health_check_interval")

    async def start(self) -> None:
        """Opens the first connection (for up to start_timeout) and keeps watching."""
        if not self.conf["enable"]:
            return
        self.pool = Pool(
            self.target,
            size=self.conf.integer("pool_size"),
            pipelining=self.conf.integer("enable_pipelining"),
            timeout=self.conf.seconds("connect_timeout"),
            by_hash=self.conf["pool_type"] == "hash",
        )
        self.status = "connecting"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.conf.seconds("resource_opts", "start_timeout")):
                await self._check(self.pool)
        self._monitor = asyncio.create_task(self._watch(self.pool))

    async def stop(self) -> None:
        if self._monitor is not None:
            self._monitor.cancel()
            await asyncio.gather(self._monitor, return_exceptions=True)
        if self.pool is not None:
            await self.pool.close()
        self.status, self.status_reason = "disconnected", ""

    async def _watch(self, pool: Pool) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._check(pool)

    async def _check(self, pool: Pool) -> None:
        status = "connected" if await pool.check() else "disconnected"
        self.status_reason = "" if status == "connected" else "Connection refused"
        if status != self.status:
            self.status = status
            if status == "connected":
                log.info("connector http:%s: connected to %s", self.name, self.target.authority)
            else:
                self.outages += 1
                log.warning(
                    "connector http:%s: nobody answers at %s; messages wait until request_ttl",
                    self.name,
                    self.target.authority,
                )


# given an entry of `fallback_actions`, a rule's output and the message it is of
FallBack = Callable[[Mapping[str, object], Mapping[str, object], Message], object]


class HttpAction:
    """Posts rule outputs. `deliver` never waits; what became of a message is told later."""

    def __init__(
        self,
        name: str,
        conf: Settings,
        connector: Connector,
        fall_back: FallBack = lambda *_: None,
    ) -> None:
        self.name = name
        self.conf = conf
        self.connector = connector
        self._fall_back = fall_back
        self._strategy = conf.section("resource_opts").get("dispatch_strategy")
        self.counters: Counter[str] = Counter()
        self._seen = -1  # the connector's outages at this action's last good health check
        self._monitor: asyncio.Task[None] | None = None
        self._gauging: asyncio.Task[None] | None = None
        self._gauges = {"inflight": 0, "queuing": 0, "queuing_bytes": 0}
        self._interval = conf.seconds("resource_opts", "health_check_interval")
        self._ttl = conf.seconds("resource_opts", "request_ttl")
        limits = Limits(
            inflight_window=conf.integer("resource_opts", "inflight_window"),
            max_buffer_bytes=conf.bytes("resource_opts", "max_buffer_bytes"),
            resume=max(0.001, min(self._interval, self._ttl / 3)),
            attempts=1 + conf.integer("parameters", "max_retries"),
        )
        self._workers = [
            Worker(limits, self._sender(index), lambda: self.status == "connected", self.counters)
            for index in range(conf.integer("resource_opts", "worker_pool_size"))
        ]

    @property
    def status_reason(self) -> str:
        """In EMQX's words; empty when connected."""
        if self.status == "connected":
            return ""
        installed = self.conf["enable"] and self.connector.conf["enable"]
        return "Resource not operational" if installed else "Not installed"

    @property
    def status(self) -> str:
        """`connected` once this action's own health check saw its connector connected."""
        if not self.conf["enable"] or self.connector.status == "disconnected":
            return "disconnected"
        return "connected" if self._seen == self.connector.outages else "connecting"

    async def start(self) -> None:
        if self.conf["enable"]:
            self._check()
            self._monitor = asyncio.create_task(self._watch())
            self._gauging = asyncio.create_task(self._gauge())

    async def stop(self) -> None:
        tasks = [task for task in (self._monitor, self._gauging) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if left := self.queuing + self.inflight:
            log.warning("action http:%s stops with %d messages not delivered", self.name, left)
        await asyncio.gather(*(worker.close() for worker in self._workers))

    def deliver(
        self,
        output: Mapping[str, object],
        message: Message,
        told: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        """Buffers one rule output. Raises RuleException when it can't be JSON."""
        self.counters["matched"] += 1
        if not self.conf["enable"] or not self.connector.conf["enable"]:
            self.counters.update(("dropped", "dropped.resource_stopped"))
            log.warning("action http:%s is disabled; message %s dropped", self.name, message.id)
            told(Outcome.FAILED)
            return

        def finished(query: Query, outcome: Outcome) -> None:
            self._count(query, outcome)
            told(outcome)
            if outcome in (Outcome.FAILED, Outcome.EXPIRED, Outcome.OVERFLOW):
                fallbacks = self.conf.get("fallback_actions", [])
                assert isinstance(fallbacks, list)
                for entry in fallbacks:
                    self._fall_back(entry, output, message)

        query = Query(
            request=self._request(output),
            expires=asyncio.get_running_loop().time() + self._ttl,
            finished=finished,
            label=f"message {message.id} on topic {message.topic!r}",
        )
        self._workers[self._buffer_of(message)].offer(query)

    def _buffer_of(self, message: Message) -> int:
        """By the publishing connection; in EMQX 6 by the client, or by chance."""
        if self._strategy == "random":
            return random.randrange(len(self._workers))
        sender = message.source if self._strategy is None else message.clientid
        return zlib.crc32(sender.encode()) % len(self._workers)

    def metrics(self) -> dict[str, int | float]:
        """The counters under EMQX's names; its gauges are up to five seconds old."""
        counted = {name: self.counters[name] for name in self.no_metrics()}
        rates = {name: 0.0 for name in counted if name.startswith("rate")}
        return {**counted, **rates, **self._gauges}

    @staticmethod
    def no_metrics() -> dict[str, int | float]:
        """What EMQX answers for an action that does not exist, too."""
        return dict.fromkeys(_METRICS.split(), 0)

    def reset_metrics(self) -> None:
        self.counters.clear()

    @property
    def inflight(self) -> int:
        """Now, as `queuing`; what `metrics` tells is older."""
        return sum(worker.inflight for worker in self._workers)

    @property
    def queuing(self) -> int:
        return sum(worker.queuing for worker in self._workers)

    async def _gauge(self) -> None:
        while True:
            await asyncio.sleep(GAUGES)
            held = sum(worker.queuing_bytes for worker in self._workers)
            self._gauges = {
                "inflight": self.inflight,
                "queuing": self.queuing,
                "queuing_bytes": held,
            }

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            self._check()

    def _check(self) -> None:
        if self.connector.status == "connected":
            self._seen = self.connector.outages

    def _sender(self, index: int) -> Callable[[bytes, int], asyncio.Future[int]]:
        def send(request: bytes, order: int) -> asyncio.Future[int]:
            assert self.connector.pool is not None
            return self.connector.pool.request(request, index, order)

        return send

    def _request(self, output: Mapping[str, object]) -> bytes:
        target = self.connector.target
        parameters = self.conf.section("parameters")
        method = str(parameters["method"]).upper()
        asked = quote(render(str(parameters.get("path", "")), output), _IN_PATH)
        path = f"{target.path}/{asked.lstrip('/')}"
        template = parameters.get("body")
        body = to_json(output) if template is None else render(str(template), output)
        configured = parameters.section("headers") | self.connector.conf.section("headers")
        headers = {
            # EMQX takes header values for templates, so "Bearer ${TOKEN}" goes out as undefined
            name.lower(): _one_line(render(str(value), output))
            for name, value in configured.items()
        }
        headers["host"] = target.authority
        if method in ("POST", "PUT"):
            headers["content-length"] = str(len(body))
        else:
            body = b""
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body

    def _count(self, query: Query, outcome: Outcome) -> None:
        if outcome is Outcome.DONE:
            self.counters["success"] += 1
        elif outcome is Outcome.FAILED:
            self.counters["failed"] += 1
            why = f"{self.connector.target.authority} answered {query.reason}"
            self._say_dropped(query, why, _HINTS.get(query.reason, _HINT))
        elif outcome is Outcome.LATE:
            self.counters["late_reply"] += 1
        else:
            self.counters.update(("dropped", _DROPPED[outcome]))
            hint = "see resource_opts.request_ttl" if outcome is Outcome.EXPIRED else "buffer full"
            self._say_dropped(query, f"{outcome.value}, last: {query.reason or 'not sent'}", hint)

    def _say_dropped(self, query: Query, why: str, hint: str) -> None:
        log.warning("DROPPED by action http:%s: %s: %s (%s)", self.name, query.label, why, hint)


def _one_line(value: bytes) -> str:
    """A header's value; what a message puts into it can't add another header."""
    return value.decode("latin-1").replace("\r", " ").replace("\n", " ")
