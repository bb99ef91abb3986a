"""Text of strangers, made fit to be shown."""

import io
import json
import logging
import sys

import pytest
from rich.table import Table

from service import safe_text
from service.cli import common
from service.errors import ConfigError, EmqxGptError, Fault
from service.operations.logs import FIELDS, JsonFormatter, TextFormatter

ODD = [
    *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)),  # C0, DEL, C1
    *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",  # direction
    *"\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e",  # no width
    "\u2028", "\u2029", "\u0085", "\ud800", "\ufffe", "\udfff", "\U000e0041",
]  # fmt: skip
EVIL = "a" + "".join(ODD) + "z"
FORGED = "x\n2026-01-01 00:00:00,000 ERROR emqx-gpt: made up\r\x1b[2J\u2028y"


@pytest.mark.parametrize("char", ODD, ids=lambda char: f"{ord(char):04x}")
def test_what_is_not_shown_stands_as_an_escape(char: str) -> None:
    shown = safe_text.line(f"a{char}z")
    assert shown.isprintable()
    assert shown.encode()  # no lone surrogate
    assert len(shown) > 3  # and it is seen that something was there


@pytest.mark.parametrize("text", ["", "Grüße, 机器人 °C “quoted” 😀", "שלום", "a\\x1b b"])
def test_what_can_be_shown_stays(text: str) -> None:
    assert safe_text.line(text) == text


def test_a_long_text_is_cut_with_a_mark() -> None:
    assert safe_text.line("x" * 5000) == "x" * (safe_text.LONGEST - 1) + "…"
    assert safe_text.line("\x1b" * 10, 5) == "\\x1b" * 4 + "…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:pa55@host/v1", "http://***@host/v1"),
        ("http://token@host:80/v1 is", "http://***@host:80/v1 is"),
        ("postgresql+asyncpg://u:p/a:s@s@host/db", "postgresql+asyncpg://***@host/db"),
        ("(https://u:p%40@[::1]/) x@y", "(https://***@[::1]/) x@y"),
        ("http://host:8080/users/a@b", "http://host:8080/users/a@b"),
        ("http://host/a@b mailto:a@b", "http://host/a@b mailto:a@b"),
        ("http://a:b@x http://c:d@y", "http://***@x http://***@y"),
    ],
)
def test_addresses_lose_who_calls(text: str, shown: str) -> None:
    assert safe_text.masked(text) == shown


def test_the_secrets_of_this_process_are_hidden_and_short_words_are_not() -> None:
    safe_text.hide(["", "a", "emqx", "sk-canary-of-test-plain"])
    assert safe_text.line("emqx a: sk-canary-of-test-plain?") == "emqx a: ***?"


def test_json_means_the_same_when_it_is_shown() -> None:
    document = json.dumps({"said": EVIL, "ok": "ü😀"}, indent=2, ensure_ascii=False)
    shown = safe_text.json_lines(document)
    assert json.loads(shown) == json.loads(document)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "ü😀" in shown


def test_errors_and_faults_can_be_shown() -> None:
    assert EmqxGptError(EVIL).message.isprintable()
    assert str(EmqxGptError(EVIL)).isprintable()
    fault = Fault(EVIL, EVIL, 3, hint=EVIL)
    assert str(fault).isprintable()
    assert ConfigError(f"http://u:pa55@h{EVIL}", (fault,)).message.startswith("http://***@h")


def logged(form: logging.Formatter, text: str) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(form)
    try:
        raise ValueError(text)
    except ValueError:
        record = logging.makeLogRecord(
            {"name": "t", "msg": "said %s", "args": (text,), "levelname": "ERROR"}
            | {"exc_info": sys.exc_info(), **dict.fromkeys(FIELDS, text)}
        )
    handler.handle(record)
    return stream.getvalue()


@pytest.mark.parametrize("text", [EVIL, FORGED])
def test_a_text_line_of_the_log_is_one_line_and_its_trace_is_no_line_of_its_own(text: str) -> None:
    out = logged(TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"), text)
    first, *rest = out.removesuffix("\n").split("\n")
    assert first.isprintable()
    assert rest[0] == "Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in rest[1:])


@pytest.mark.parametrize("text", [EVIL, FORGED])
def test_a_json_line_of_the_log_is_one_line(text: str) -> None:
    out = logged(JsonFormatter(), text)
    (line,) = out.splitlines()
    assert line.isprintable()
    assert json.loads(line)["flow"].isprintable()


def test_a_console_shows_whatever_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None)
    table.add_column("name")
    table.add_row(EVIL.replace("\n", ""))
    out = common.console()
    out.print(EVIL, markup=False, soft_wrap=True)
    out.print(table)
    common.say(EVIL)
    common.say_json({EVIL: EVIL})
    common.say_error(ConfigError("x", (Fault(EVIL, EVIL),)))
    shown = capsys.readouterr()
    for line in (shown.out + shown.err).split("\n"):
        assert line.isprintable(), line
