"""Whose request is it: names that are rebound, pages of other sites, proxies."""

import pytest

from service.web.origin import is_json, known_host, refusal, same_origin

NAMES = frozenset({"gpt.example.com", "front:8000"})


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    pairs = ((name.replace("_", "-"), text) for name, text in values.items())
    return [(name.encode(), text.encode("latin-1", "replace")) for name, text in pairs]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.:8000", "app.localhost", "127.0.0.1:8000",
     "127.9.9.9", "[::1]:8000", "[::1]", "[::ffff:127.0.0.1]:8000", "192.168.1.5:8000",
     "GPT.example.com", "gpt.example.com:443", "front:8000"],
)  # fmt: skip
def test_hosts_of_our_own(host):
    assert known_host(host, NAMES)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost", "front",
     "front:8001", "x.gpt.example.com", "gpt.example.com.evil", "", ":8000", ".", "[::1", "::1",
     "localhost:", "localhost:x", "localhost:123456", "user@localhost", "localhost/x", "local host",
     "localhost, evil.example", "[evil]:80", "127.1", "0x7f000001", "ⓛocalhost"],
)  # fmt: skip
def test_hosts_that_are_none_of_ours(host):
    assert not known_host(host, NAMES)


def test_without_names_any_name_will_do_but_no_nonsense():
    assert known_host("emqx-gpt.internal:8000", None)
    assert not known_host("a b", None)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("gpt.example.com", "https://gpt.example.com"),
        ("gpt.example.com:443", "https://gpt.example.com"),
        ("gpt.example.com", "http://gpt.example.com:80"),
        ("127.0.0.1:8000", "https://gpt.example.com"),  # a proxy that changes Host
        ("127.0.0.1:8000", "http://front:8000"),
    ],
)
def test_pages_of_our_own(host, origin):
    found = headers(host=host, origin=origin, sec_fetch_site="same-origin")
    assert same_origin(found, NAMES)
    assert refusal(found, NAMES) is None


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "http://localhost:3000", "https://localhost:8000",
     "http://localhost", "http://127.0.0.1:8000", "https://gpt.example.com:8443",
     "https://gpt.example.com.evil", "https://evil.example/gpt.example.com", "http://localhost:8000@evil",
     "http://localhost:8000/x", "file://", "chrome-extension://abc", "http://localhost:8000, null",
     "http://[::1]:8000", "localhost:8000"],
)  # fmt: skip
def test_pages_of_other_sites(origin):
    found = headers(host="localhost:8000", origin=origin)
    if origin == "https://localhost:8000":  # TLS that ends in a proxy: the page is ours
        assert same_origin(found, NAMES)
        return
    assert not same_origin(found, NAMES)
    assert "ALLOWED_HOSTS" in (refusal(found, NAMES) or "")


def test_two_origins_are_none():
    found = [*headers(host="localhost:8000", origin="http://localhost:8000"), (b"origin", b"null")]
    assert not same_origin(found, NAMES)


@pytest.mark.parametrize(
    ("site", "mode", "fine"),
    [("none", "navigate", True), ("same-origin", "cors", True), ("cross-site", "no-cors", False),
     ("same-site", "no-cors", False), ("cross-site", "navigate", True)],
)  # fmt: skip
def test_what_a_browser_sends_without_an_origin(site, mode, fine):
    found = headers(host="localhost:8000", sec_fetch_site=site, sec_fetch_mode=mode)
    assert (refusal(found, NAMES) is None) is fine
    if site in ("cross-site", "same-site"):  # a followed link may show a page, and do nothing
        assert not same_origin(found, NAMES)


def test_programs_send_none_of_it():
    assert refusal(headers(host="localhost:8000"), NAMES) is None
    assert refusal([], NAMES) is None  # HTTP/1.0, as a proxy's health check


@pytest.mark.parametrize("text", ["application/json", "Application/JSON; charset=utf-8"])
def test_json(text):
    assert is_json(text)


@pytest.mark.parametrize(
    "text", [None, "", "text/plain", "text/plain; application/json", "application/jsonp",
             "multipart/form-data", "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_not_json(text):
    assert not is_json(text)
