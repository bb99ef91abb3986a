"""What devices send: NULs, BOMs, charsets, pictures in all their wrappings."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import Message
from service.mqtt.payloads import charset_of, picture, readable

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 2
B64 = base64.b64encode(JPEG)


def message(payload: bytes, content_type: str | None = None) -> Message:
    return Message("1", "t", payload, 0, content_type=content_type)


TEXTS = [  # payload, content type, charset of the flow, text
    (b"hello", None, None, "hello"),
    (b"hello\0", None, None, "hello"),
    (b"hello\0\0\0", None, None, "hello"),
    (b"hel\0lo", None, None, "hel\0lo"),
    (b'\xef\xbb\xbf{"t": 41}', None, None, '{"t": 41}'),
    (b"\xef\xbb\xbf/reset\0", None, None, "/reset"),
    ("你好".encode(), None, None, "你好"),
    ("你好".encode("gbk"), None, "gbk", "你好"),
    ("你好".encode("gbk"), None, "GB2312", "你好"),
    ("你好".encode("gbk"), "text/plain; charset=gbk", None, "你好"),
    ("你好".encode("gbk"), 'text/plain;charset="GBK"', None, "你好"),
    ("你好".encode(), None, "gbk", "你好"),  # UTF-8 goes before the flow's charset
    ("你好".encode(), "text/plain; charset=utf-8", "gbk", "你好"),
    ("Zürich 5 °C".encode("latin-1"), None, "latin-1", "Zürich 5 °C"),
    ("Zürich".encode("latin-1"), "text/plain; charset=iso-8859-1", None, "Zürich"),
    ("Привет".encode("cp1251"), None, "windows-1251", "Привет"),
    ("hello".encode("utf-16"), None, None, "hello"),
    ("hello\0".encode("utf-16-be"), "text/plain; charset=utf-16be", None, "hello"),
    ("日本".encode("shift_jis"), None, "shift_jis", "日本"),
    ("你好".encode(), "text/plain; charset=klingon", None, "你好"),
    ("你好".encode(), "text/plain; charset=unicode_escape", None, "你好"),
    (b"a\\u0062", "text/plain; charset=unicode_escape", None, "a\\u0062"),
]


@pytest.mark.parametrize(("payload", "content_type", "charset", "text"), TEXTS)
def test_payloads_are_read(
    payload: bytes, content_type: str | None, charset: str | None, text: str
) -> None:
    assert readable(message(payload, content_type), charset).payload == text.encode()


def test_bytes_of_no_known_charset_stay_as_they_are() -> None:
    payload = "你好".encode("gbk")
    assert readable(message(payload)).payload == payload
    assert readable(message(payload), "ascii").payload == payload
    assert readable(message(payload, "text/plain; charset=klingon")).payload == payload


@pytest.mark.parametrize("name", ["utf-8", "GBK", "latin-1", "cp1252", "Big5", "koi8-r", "euc-kr"])
def test_charsets(name: str) -> None:
    assert charset_of(name)


@pytest.mark.parametrize(
    "name",
    ["hex", "rot13", "zlib", "idna", "punycode", "unicode_escape", "utf-7", "", "x\0y", "x" * 999],
)
def test_codecs_that_are_no_charsets(name: str) -> None:
    assert charset_of(name) is None


@given(st.binary(), st.none() | st.text(max_size=40), st.sampled_from([None, "gbk", "latin-1"]))
def test_whatever_comes_is_read_or_left(
    payload: bytes, content_type: str | None, charset: str | None
) -> None:
    found = readable(message(payload, content_type), charset).payload
    assert found == payload or found.decode() is not None


WRAPPED = [
    JPEG,
    JPEG + b"\0",
    B64,
    b"data:image/jpeg;base64," + B64,
    b"DATA:image/jpeg;charset=utf-8;base64," + B64,
    b"data:;base64," + B64,
    base64.encodebytes(JPEG),
    base64.encodebytes(JPEG).replace(b"\n", b"\r\n"),
    base64.urlsafe_b64encode(JPEG),
    base64.urlsafe_b64encode(JPEG).rstrip(b"="),
    B64 + b"\0",
    b"\xef\xbb\xbf" + B64,
    b'"' + B64 + b'"\n',
    B64.replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D"),
    b"data:image/jpeg;base64,\r\n" + base64.encodebytes(JPEG) + b"\0\0",
]


@pytest.mark.parametrize("payload", WRAPPED)
def test_pictures_in_all_their_wrappings(payload: bytes) -> None:
    found = picture(payload)
    assert found is not None
    kind, data = found
    assert kind == "image/jpeg"
    assert data.rstrip(b"\0") == JPEG.rstrip(b"\0")


@pytest.mark.parametrize(
    "payload", [b"", b"hello", b"data:image/jpeg;base64,", b"data:,x", b"aGVsbG8=", b"\x00" * 9]
)
def test_what_is_no_picture(payload: bytes) -> None:
    assert picture(payload) is None


@given(st.binary())
def test_whatever_comes_is_a_picture_or_not(payload: bytes) -> None:
    found = picture(payload)
    assert found is None or found[0].startswith("image/")
