"""Asking later what became of a request: over HTTP, on the command line, in figures and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess

import pytest

from tests.fakes.model import hang, ok, status
from tests.rig import ROOT, command, counter, environment, eventually, message, rig

FLOWS = """
[flows.ask]
request = "ask/${user}"
reply = "say/${user}"

[flows.other]
request = "other/${user}"
reply = "said/${user}"
history = { messages = 10 }
"""


async def test_a_request_shows_all_that_is_known_of_it(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("say/ada") as ada:
        house.model.script(status(500), ok("well", usage=(7, 3)))
        await ada.publish("ask/ada", b"hi")
        await message(ada)
        (listed,) = await house.ended()
        shown = await house.request(listed["id"])
        assert {**shown, **listed} == shown
        assert shown["flow"] == "ask"
        assert shown["conversation"] == "ada"
        assert shown["topic"] == "ask/ada"
        assert shown["clientid"] == "emqx-gpt-demo"
        assert (shown["state"], shown["outcome"], shown["delivered"]) == ("done", "done", True)
        assert (shown["payload"], shown["reply"]) == ("hi", "well")
        assert shown["model"] == "gpt-5.4-mini"
        assert shown["usage"]["total_tokens"] == 10
        first, second = shown["attempts"]
        assert (first["result"], second["result"]) == ("model_unavailable", "ok")
        assert "failed (500)" in first["message"]
        assert shown["accepted_at"] <= first["at"] <= second["at"] <= shown["answered_at"]
        assert shown["answered_at"] <= shown["ended_at"] < shown["deadline"]


async def test_the_list_is_filtered(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("say/+", "said/+") as client:
        house.model.behave(
            lambda body: status(400) if "bad" in body["messages"][-1]["content"] else ok("well")
        )
        for topic, text in (("ask/a", b"x"), ("ask/b", b"bad"), ("other/a", b"x")):
            await client.publish(topic, text)
            await message(client)
        await house.ended(3)

        async def found(**query):
            return [(one["flow"], one["conversation"]) for one in await house.requests(**query)]

        assert await found() == [("other", "a"), ("ask", "b"), ("ask", "a")]
        assert await found(state="failed") == [("ask", "b")]
        assert await found(state="queued") == []
        assert await found(flow="other") == [("other", "a")]
        assert await found(conversation="a") == [("other", "a"), ("ask", "a")]
        assert await found(flow="ask", conversation="a", state="done") == [("ask", "a")]
        assert await found(limit=1) == [("other", "a")]


async def test_conversations_are_shown_and_forgotten(any_database):
    async with rig(any_database, flows=FLOWS) as house, house.mqtt("said/+") as client:
        for text in ("one", "two"):
            await client.publish("other/ada", text.encode())
            await message(client)
        await house.ended(2)
        shown = (await house.http.get("/conversations/other/ada")).json()
        assert [(turn["user"], turn["assistant"]) for turn in shown["turns"]] == [
            ("one", "echo: one"), ("two", "echo: two")
        ]  # fmt: skip
        assert (await house.http.delete("/conversations/other/ada")).json() == {"forgotten": 2}
        await client.publish("other/ada", b"three")
        await message(client)
        assert len(house.model.calls[-1].messages) == 1
        answer = await house.http.get("/conversations/nobody/ada")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_figures(any_database):
    settings = {"flows": FLOWS, "max_concurrency": 1}
    async with rig(any_database, **settings) as house, house.mqtt("say/+") as client:
        house.model.script(status(400), status(500), ok("well", usage=(7, 3)))
        for number in range(2):
            await client.publish(f"ask/u{number}", b"x")
            await message(client)
        await house.ended(2)
        house.model.script(hang())
        for number in range(4):
            await client.publish(f"ask/u{number}", b"x")
        await house.stored(6)
        await house.model.wait_for_calls(4)
        await house.move(20_000, holding=True)
        text = (await house.http.get("/metrics")).text

        def value(name, **labels):
            return counter(text, f"emqx_gpt_{name}", **labels)

        assert value("accepted_total", flow="ask") == 6
        assert value("ended_total", flow="ask", state="done") == 1
        assert value("ended_total", state="failed", error="model_refused") == 1
        assert value("model_calls_total", model="gpt-5.4-mini", result="ok") == 1
        assert value("model_calls_total", result="model_refused") == 1
        assert value("model_calls_total", result="model_unavailable") == 1
        assert value("publishes_total", result="delivered") == 2
        assert value("stage_seconds_count", stage="webhook") == 6
        assert value("stage_seconds_count", stage="model") == 3
        assert value("stage_seconds_count", stage="total") == 2
        assert value("backlog") == 4
        assert value("in_flight") == 1
        assert 20 <= value("backlog_age_seconds") < 30
        assert value("tokens_total", kind="prompt") == 7
        assert value("tokens_total", kind="completion") == 3
        await house.move(-20_000, holding=True)
        house.model.release()
        for _ in range(4):
            await message(client)


async def test_each_end_is_one_line_in_the_log_without_what_was_said(database, caplog):
    caplog.set_level(logging.INFO)
    async with rig(database, flows=FLOWS) as house, house.mqtt("say/+") as client:
        house.model.script(ok("the secret answer"), status(400, message="no secret"))
        for _ in range(2):
            await client.publish("ask/ada", b"the secret question")
            await message(client)
        await client.publish("ask/ada", b"")
        ends = await house.ended(3)

        def lines():
            """Each end's line: it comes just after the end is stored."""
            found = [record.getMessage() for record in caplog.records]
            return found if sum(line.startswith("request ") for line in found) == 3 else None

        lines = await eventually(lines)
        for one in ends:
            (line,) = [line for line in lines if line.startswith(f"request {one['id']} ")]
            assert f" {one['state']} flow=ask took=" in line
            if one["error"]:
                assert line.endswith(f"error={one['error']['code']}")
        assert not any("secret" in line for line in lines)


async def cli(database, *args, folder):
    env = environment(DATABASE_URL=database, FLOWS=str(ROOT / "flows.toml"), COLUMNS="200")
    return await asyncio.to_thread(
        subprocess.run,
        command("requests", *args),
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def dead_letter(house, client):
    house.model.script(status(400), ok("late"))
    await client.publish("chatgpt/request/ada", b"hi")
    await message(client)
    (dead,) = await house.ended()
    return dead


async def test_the_command_line_looks_beside_the_service(database, tmp_path):
    async with rig(database) as house, house.mqtt("chatgpt/response/ada") as ada:
        dead = await dead_letter(house, ada)
        listed, shown, missing, refused = await asyncio.gather(
            cli(database, "list", "--state", "failed", "--json", folder=tmp_path),
            cli(database, "show", dead["id"], "--json", folder=tmp_path),
            cli(database, "show", "nobody", folder=tmp_path),
            cli(database, "list", "--state", "dead", folder=tmp_path),
        )
        assert json.loads(listed.stdout) == dead
        assert json.loads(shown.stdout) == await house.request(dead["id"])
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "no request 'nobody'" in missing.stderr
        assert refused.returncode == 2
        assert "queued" in refused.stderr


async def test_the_command_line_retries_beside_the_service(any_database, tmp_path):
    async with rig(any_database) as house, house.mqtt("chatgpt/response/ada") as ada:
        dead = await dead_letter(house, ada)
        shown = await cli(any_database, "retry", dead["id"], folder=tmp_path)
        id, state = shown.stdout.split()
        assert id == dead["id"]
        assert state in ("queued", "answering", "answered", "done")  # it may be taken at once
        assert (await message(ada))[1] == b"late"  # the service takes it without a restart
        assert (await house.ended(1))[0]["state"] == "done"


async def test_ended_requests_are_removed_after_retention_and_open_ones_are_not(any_database):
    settings = {"flows": FLOWS, "retention": 3600.0, "lease": 7200.0}
    async with rig(any_database, **settings) as house, house.mqtt("say/+") as client:
        await client.publish("ask/ada", b"x")
        await message(client)
        await house.ended()
        house.model.script(hang())
        await client.publish("ask/bob", b"x")
        await house.model.wait_for_calls(2)
        await house.move(3_601_000, holding=True)

        async def removed():
            await house.service.worker.purge()
            found = await house.requests()
            return [one["conversation"] for one in found] == ["bob"]

        await eventually(removed)
        house.model.release()
        assert (await message(client))[0] == "say/bob"


@pytest.mark.parametrize("path", ["/requests/none", "/nowhere", "/conversations/none/x"])
async def test_what_is_not_there_is_404_in_the_one_error_shape(database, path):
    async with rig(database) as house:
        answer = await house.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
