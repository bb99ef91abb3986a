"""Raw HTTP connections and buffer workers by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from service.demo.standin.buffer import Limits, Outcome, Query, Worker
from service.demo.standin.raw_http import Connection, Lost, Target
from tests.demo.webhook import until

# ---- the parts by themselves


class Sent(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


def connected(pipelining: int = 100) -> tuple[Connection, Sent]:
    connection, transport = Connection(Target("h", 1, "", False), pipelining, 1.0), Sent()
    connection.connection_made(transport)
    return connection, transport


OK = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}"


async def test_no_more_than_enable_pipelining_are_under_way() -> None:
    connection, transport = connected(pipelining=2)
    answers = [connection.request(data) for data in (b"1", b"2", b"3")]
    assert transport.writes == [b"1", b"2"]
    connection.data_received(OK)
    assert transport.writes == [b"1", b"2", b"3"]
    assert [answer.done() for answer in answers] == [True, False, False]


@pytest.mark.parametrize(
    ("stream", "statuses"),
    [
        (OK + b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", [202, 503]),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, [202]),
        (b"HTTP/1.1 204 None\r\n\r\n" + OK, [204, 202]),
        (
            b"HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n" + OK,
            [200, 202],
        ),
    ],
)
async def test_answers_are_told_apart_however_they_are_cut(
    stream: bytes, statuses: list[int]
) -> None:
    for cut in range(1, len(stream)):
        connection, _ = connected()
        answers = [connection.request(b"x") for _ in statuses]
        connection.data_received(stream[:cut])
        connection.data_received(stream[cut:])
        assert [answer.result() for answer in answers] == statuses


async def test_after_connection_close_the_rest_is_lost_and_can_be_sent_again() -> None:
    connection, transport = connected()
    first, second = connection.request(b"1"), connection.request(b"2")
    connection.data_received(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    assert first.result() == 200
    assert transport.closed
    connection.connection_lost(None)
    with pytest.raises(Lost):
        second.result()


async def test_a_body_until_the_end_of_the_connection_is_an_answer() -> None:
    connection, _ = connected()
    answer = connection.request(b"1")
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nsome text")
    assert not answer.done()
    connection.connection_lost(None)
    assert answer.result() == 200


async def test_garbage_breaks_the_connection() -> None:
    connection, transport = connected()
    answer = connection.request(b"1")
    connection.data_received(b"not HTTP at all\r\n")
    assert transport.closed
    connection.connection_lost(None)
    with pytest.raises(Lost):
        answer.result()


async def test_the_oldest_go_when_a_buffer_is_full() -> None:
    outcomes: list[tuple[str, Outcome]] = []
    limits = Limits(inflight_window=1, max_buffer_bytes=10, resume=1.0, attempts=1)
    sent: list[asyncio.Future[int]] = []

    def send(_: bytes, __: int) -> asyncio.Future[int]:
        sent.append(asyncio.get_running_loop().create_future())
        return sent[-1]

    worker = Worker(limits, send, lambda: True, Counter())
    for label in ("1", "2", "3", "4"):
        worker.offer(
            Query(
                request=b"12345",
                expires=float("inf"),
                finished=lambda query, outcome: outcomes.append((query.label, outcome)),
                label=label,
            )
        )
    assert outcomes == [("2", Outcome.OVERFLOW)]  # 1 is under way, 3 and 4 fit
    assert (worker.inflight, worker.queuing, worker.queuing_bytes) == (1, 2, 10)
    await until(lambda: sent)
    sent[0].set_result(200)
    await until(lambda: len(sent) == 2)
    assert outcomes[1:] == [("1", Outcome.DONE)]
    await worker.close()
