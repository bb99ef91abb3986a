"""The flows in force are exchanged at once, and what holds them keeps its own."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from service.flows import Catalogue, Edition, parse
from service.flows.changes import Changes

FLOW = '[flows.{0}]\nrequest = "{0}/${{user}}"\nreply = "r{0}/${{user}}"\n'


def edition(text: str, **keys: str) -> Edition:
    found, faults = parse(text)
    assert found is not None, faults
    return Edition(found, keys)


def test_what_begins_after_an_exchange_sees_the_new_ones() -> None:
    catalogue = Catalogue(edition(FLOW.format("a")))
    assert list(catalogue.flows) == ["a"]
    catalogue.exchange(edition(FLOW.format("b")))
    assert list(catalogue.flows) == ["b"]
    assert catalogue.find(None, "b/x") is catalogue.flows["b"]
    assert catalogue.find(None, "a/x") is None


async def test_each_task_keeps_the_flows_that_it_holds() -> None:
    catalogue = Catalogue(edition(FLOW.format("a")))
    seen: list[list[str]] = []
    go = asyncio.Event()

    async def life() -> None:
        with catalogue.pinned():
            await go.wait()
            seen.append(list(catalogue.flows))
            seen.append(await asyncio.to_thread(lambda: list(catalogue.flows)))
        seen.append(list(catalogue.flows))

    held = asyncio.create_task(life())
    await asyncio.sleep(0)
    catalogue.exchange(edition(FLOW.format("b")))
    assert list(catalogue.flows) == ["b"]
    assert list(catalogue.latest.flows.flows) == ["b"]
    go.set()
    await held
    assert seen == [["a"], ["a"], ["b"]]


async def test_two_catalogues_do_not_hold_each_other() -> None:
    one, other = (Catalogue(edition(FLOW.format("a"))) for _ in range(2))
    with one.pinned():
        other.exchange(edition(FLOW.format("b")))
        assert list(other.flows) == ["b"]
        assert list(one.flows) == ["a"]


async def test_what_a_task_left_behind_keeps_no_old_flows() -> None:
    first = edition(FLOW.format("a"))
    catalogue = Catalogue(first)

    async def outlives() -> None:
        await asyncio.Event().wait()

    with catalogue.pinned():
        left = asyncio.create_task(outlives())  # its context is a copy of this one's
    catalogue.exchange(edition(FLOW.format("b")))
    gc.collect()
    assert sys.getrefcount(first) == 2  # this test, and the call itself
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (FLOW.format("a"), FLOW.format("a"), "nothing is different"),
        (FLOW.format("a"), "# a comment\n" + FLOW.format("a"), "nothing is different"),
        (FLOW.format("a"), FLOW.format("a") + FLOW.format("b"), "added b"),
        (FLOW.format("a") + FLOW.format("b"), FLOW.format("b"), "removed a"),
        (FLOW.format("a"), FLOW.format("a") + 'system = "x"\n', "changed a"),
        (
            FLOW.format("a"),
            FLOW.format("b") + '[providers.p]\nbase_url = "http://p/v1"\n[prices]\nm = '
            "{ input = 1, output = 2 }\n",
            "added b; removed a; other providers: p; other prices",
        ),
    ],
)  # fmt: skip
def test_what_is_different_is_said(old: str, new: str, said: str) -> None:
    changes = Changes.between(edition(old), edition(new))
    assert str(changes) == said
    assert bool(changes) is (said != "nothing is different")


def test_another_key_is_another_provider() -> None:
    text = FLOW.format("a")
    changes = Changes.between(edition(text, openai="sk-1"), edition(text, openai="sk-2"))
    assert changes.providers == ("openai",)
    assert "sk-" not in str(changes) + repr(edition(text, openai="sk-1"))
