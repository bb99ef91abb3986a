"""`every`: cron expressions and time zones, and what does not go with them."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from service.emqx.config_file import render
from service.flows import parse
from service.flows.cron import Cron

FLOW = '[flows.report]\nreply = "reports/night"\nprompt = "Sum up the night."\n'


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp() * 1000)


def times(cron: str, start: str, end: str, zone: str) -> list[str]:
    """The local times of a schedule, each with its offset."""
    made, at, found = Cron.parse(cron), ms(start, zone), []
    until = ms(end, zone)
    while (next_at := made.after(at, zone)) is not None and next_at <= until:
        assert next_at > at
        at = next_at
        found.append(datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).strftime("%d %H:%M%z"))
    return found


def test_each_day_at_seven_wherever_the_clock_stands() -> None:
    found = times("0 7 * * *", "2026-03-27", "2026-03-31", "Europe/Berlin")
    assert found == ["27 07:00+0100", "28 07:00+0100", "29 07:00+0200", "30 07:00+0200"]
    found = times("0 7 * * *", "2026-10-24", "2026-10-27", "Europe/Berlin")
    assert found == ["24 07:00+0200", "25 07:00+0100", "26 07:00+0100"]


def test_an_hour_that_does_not_exist_is_made_up_for_and_one_that_comes_twice_counts_once() -> None:
    spring = times("30 2 * * *", "2026-03-28", "2026-03-30T12:00", "Europe/Berlin")
    assert spring == ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]
    autumn = times("30 2 * * *", "2026-10-24", "2026-10-26T12:00", "Europe/Berlin")
    assert [text[:8] for text in autumn] == ["24 02:30", "25 02:30", "26 02:30"]


def test_in_the_hour_that_comes_twice_nothing_goes_back() -> None:
    zone = "Europe/Berlin"
    second = ms("2026-10-25T02:10", zone, fold=1)
    found = Cron.parse("30 2 * * *").after(second, zone)
    assert found == ms("2026-10-26T02:30", zone)
    hourly = times("*/30 * * * *", "2026-10-25T01:31", "2026-10-25T03:00", zone)
    assert len(hourly) == len(set(hourly)) == 5


@pytest.mark.parametrize(
    ("cron", "after", "until", "last"),
    [
        ("0 7 * * *", "2026-01-01T07:00", "2026-01-02T06:59", None),
        ("0 7 * * *", "2026-01-01T07:00", "2026-01-02T07:00", "2026-01-02T07:00"),
        ("* * * * *", "2020-01-01", "2026-01-02T06:59:59", "2026-01-02T06:59"),
        ("0 7 * * *", "2020-01-01", "2026-01-02T06:59", "2026-01-01T07:00"),
        ("0 0 1 * *", "2020-01-01", "2026-01-31", "2026-01-01"),
        ("0 0 29 2 *", "2020-03-01", "2026-01-31", "2024-02-29"),
        ("0 0 29 2 *", "2024-03-01", "2026-01-31", None),
    ],
)
def test_of_those_that_were_missed_the_last_is_found(
    cron: str, after: str, until: str, last: str | None
) -> None:
    found = Cron.parse(cron).last(ms(after), ms(until), "UTC")
    assert found == (None if last is None else ms(last))


FAULTS = {
    'every = "@daily"': 'write "0 0 * * *"',
    'every = "5m"': 'write "*/5 * * * *"',
    'every = "2h"': 'write "0 */2 * * *"',
    'every = "7:30"': 'write "30 7 * * *"',
    'every = "* * * * * *"': "leave the seconds out",
    'every = "0 0 30 2 *"': "never comes",
    'every = "0 0 31 4,6 *"': "never comes",
    'every = "0 25 * * *"': '"25" is not an hour',
    'every = "0 7 32 * *"': '"32" is not a day of the month',
    'every = "hello"': "it has five fields",
    'every = "0 7 * * *"\ntimezone = "Berlin"': 'did you mean "Europe/Berlin"?',
    'every = "0 7 * * *"\ntimezone = "moon"': "is no time zone",
    'every = "0 7 * * *"\nmissed = "later"': "missed",
    'every = "0 7 * * *"\nrequest = "a/b"': "can't go with request",
    'every = "0 7 * * *"\ninput = "image"': "can't go with every",
    'every = "0 7 * * *"\nstatus = "a/${device}"': "${device} stands for nothing",
    'every = "0 7 * * *"\nsystem = "${recent}"\nrecent = { topic = "a/${x}" }': "at a set time",
    'cron = "0 7 * * *"': 'did you mean "every"?',
}


@pytest.mark.parametrize(("lines", "said"), FAULTS.items())
def test_faults_are_told(lines: str, said: str) -> None:
    made, faults = parse(FLOW + lines + "\n")
    assert made is None
    assert any(said in str(fault) for fault in faults), [str(fault) for fault in faults]


def test_without_a_prompt_nothing_is_asked_and_keys_of_messages_do_nothing() -> None:
    bare = FLOW.replace('prompt = "Sum up the night."\n', "")
    made, faults = parse(bare + 'every = "0 7 * * *"\n')
    assert made is None
    assert "there is no prompt" in str(faults[0])
    made, faults = parse(FLOW + 'every = "0 7 * * *"\nrequire = "x"\nwhere = "qos = 1"\n')
    assert made is not None
    said = " ".join(str(fault) for fault in faults)
    assert all(fault.warning for fault in faults)
    assert "require: does nothing with every" in said
    assert "where: does nothing with every" in said


def test_it_needs_no_rule_in_emqx() -> None:
    made, faults = parse(FLOW + 'every = "0 7 * * *"\n')
    assert made is not None
    assert not faults
    (text,) = render(made).values()
    assert "'report' AS flow" not in text
    assert "emqx-gpt/every" not in text
