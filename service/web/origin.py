"""Does a request come from a page that has no business here? Pure: headers in, a word out.

Every page in an operator's browser can send requests to this machine. One that does so openly
says where it is from (`Origin`); one whose name was made to mean this machine (DNS rebinding)
says that name (`Host`). An address instead of a name can't be rebound.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]
Names = frozenset[str] | None
"""Names, or name:port, by which the service may be called beside those of this machine; in lower
case. None: any name."""

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?")
_ORIGIN = re.compile(r"(https?)://(.+)")
_PORTS = {"http": "80", "https": "443"}
ANY: Names = None


def refusal(headers: Headers, names: Names) -> str | None:
    """Why this request is none that a page of ours, or a program, would send; None: it may be."""
    host = _header(headers, b"host")
    if host is not None and not known_host(host, names):
        shown = host[:100] if host.isprintable() else "with odd characters"
        return f"this is not {shown!r}; if it is called so, put the name into ALLOWED_HOSTS"
    if _header(headers, b"origin") is None and _header(headers, b"sec-fetch-mode") == "navigate":
        return None  # a link was followed: the browser shows the answer, the page can't read it
    if not same_origin(headers, names):
        return "a page of another site asks; if it is yours, put its name into ALLOWED_HOSTS"
    return None


def known_host(host: str, names: Names) -> bool:
    """Whether a Host header names this machine: an address, localhost, or one of `names`."""
    split = _split(host)
    if split is None:
        return False
    name, port = split
    if names is None or _is_address(name) or _is_local(name):
        return True
    return name in names or f"{name}:{port}" in names


def same_origin(headers: Headers, names: Names = ANY) -> bool:
    """Whether a request is from a page of this service's own, or from no page at all.

    Behind a proxy that changes Host, the page's address must be among `names`.
    """
    origin = _header(headers, b"origin")
    if origin is None:
        said = _header(headers, b"sec-fetch-site")
        return said in (None, "same-origin", "none")
    found = _ORIGIN.fullmatch(origin)
    split = _split(found[2]) if found else None
    if found is None or split is None:
        return False  # "null" among others: a sandboxed page, a file
    name, port = split[0], split[1] or _PORTS[found[1]]
    host = _split(_header(headers, b"host") or "")
    if host is not None and (name, port) == (host[0], host[1] or _PORTS[found[1]]):
        return True
    if names is None:
        return False
    return f"{name}:{port}" in names or (name in names and port == _PORTS[found[1]])


def is_json(content_type: str | None) -> bool:
    """Whether a Content-Type says JSON: a form of another site can't say so."""
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"


def _split(authority: str) -> tuple[str, str] | None:
    """Host and port ("" where none is named); None if it is neither name nor address."""
    found = _AUTHORITY.fullmatch(authority.strip().lower())
    if found is None:
        return None
    name = found[1].strip("[]").rstrip(".")
    return (name, (found[2] or "").lstrip("0")) if name else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_local(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _header(headers: Headers, name: bytes) -> str | None:
    """Several of one name make none that is known."""
    found = [value.decode("latin-1") for key, value in headers if key == name]
    return ", ".join(found) if found else None
