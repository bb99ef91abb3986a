"""Who calls: a bearer token, or the session of one who logged in with it.

A session is a signed cookie and stands in no table: its key is made from the token that opened
it, so it outlives a restart, holds in every replica, and ends with its token. An act by cookie
also carries a word that only a page of ours can have read.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from itsdangerous import BadSignature, TimestampSigner
from starlette.requests import Request
from starlette.responses import Response

from service.errors import Forbidden, Unauthorized
from service.web.http import read_body
from service.web.wrong_tokens import Attempts

COOKIE = "emqx_gpt_session"
LIFE = 12 * 3600  # seconds
FORM = 64 << 10  # bytes of a form
SAFE = frozenset({"GET", "HEAD"})
OPERATOR, VIEWER = "operator", "viewer"

log = logging.getLogger("emqx-gpt.web")


@dataclass(frozen=True, slots=True)
class Who:
    """A caller. `csrf` is what an act by cookie has to carry; None: not by cookie."""

    name: str
    role: str
    csrf: str | None = None

    @property
    def may_act(self) -> bool:
        return self.role == OPERATOR


@dataclass(frozen=True, slots=True)
class _Known:
    """A token, whose it is, and what its sessions are signed with."""

    bearer: bytes
    name: str
    role: str
    signer: TimestampSigner
    key: bytes


def _known(token: str, role: str, place: int) -> _Known:
    """A token's part before its first colon names it: `ada:…`; it is sent whole."""
    name, colon, _ = token.partition(":")
    if not colon or not name.isprintable() or not 0 < len(name) <= 40:
        name = role if place == 0 else f"{role}-{place + 1}"
    key = hashlib.sha256(b"emqx-gpt session\0" + token.encode()).digest()
    signer = TimestampSigner(key, salt=role, digest_method=hashlib.sha256)
    return _Known(f"Bearer {token}".encode(), name, role, signer, key)


class Access:
    """Who may do what. Without any operator's token everybody may do all (loopback only)."""

    def __init__(self, operators: Iterable[str], viewers: Iterable[str]) -> None:
        self._known = [_known(token, OPERATOR, at) for at, token in enumerate(operators)]
        self.open = not self._known
        self._known += [_known(token, VIEWER, at) for at, token in enumerate(viewers)]
        self._logins = Attempts(10, 200, 300)
        self._bearers = Attempts(300, 3000, 60)

    async def authorize(self, request: Request) -> Who:
        """Raises Unauthorized, Forbidden, TooManyAttempts, TooLarge. A form's fields are in
        `request.state.form` afterwards."""
        who = await self._who(request)
        if request.method not in SAFE and not who.may_act:
            raise Forbidden("this token may only look; an operator's may do that", code="viewer")
        return who

    async def _who(self, request: Request) -> Who:
        header = request.headers.get("authorization")
        if header is None and (cookie := request.cookies.get(COOKIE)):
            who = self.session(cookie)
            if who is None:
                raise Unauthorized("the session is over; log in again", code="session_over")
            if request.method not in SAFE:
                await self.guard(request, who)
            return who
        if self.open:
            return Who("local", OPERATOR)
        if header is None:
            raise Unauthorized("the bearer token is missing; it is OPERATOR_TOKEN of the service")
        self._bearers.check(address(request))
        known = self._find(header.encode("latin-1", "replace"))
        if known is None:
            self._bearers.failed(address(request))
            raise Unauthorized("the bearer token is wrong; it is OPERATOR_TOKEN of the service")
        return Who(known.name, known.role)

    def _find(self, bearer: bytes) -> _Known | None:
        # All are compared, so that the time taken tells nothing.
        matches = [one for one in self._known if hmac.compare_digest(bearer, one.bearer)]
        return matches[0] if matches else None

    # Sessions

    def session(self, cookie: str | None) -> Who | None:
        """Whose session this is; None: nobody's, or it is over."""
        for known in self._known if cookie else ():
            try:
                nonce = known.signer.unsign(cookie or "", max_age=LIFE)
            except BadSignature:
                continue
            return Who(known.name, known.role, _csrf(known, nonce))
        return None

    async def guard(self, request: Request, who: Who) -> None:
        """Raises Forbidden unless an act by cookie carries the session's word."""
        given = request.headers.get("x-csrf-token")
        if given is None and is_form(request):
            given = (await form(request)).get("csrf")
        if given is None or not hmac.compare_digest(given.encode(), (who.csrf or "").encode()):
            text = "the page is from another session; load it again"
            raise Forbidden(text, code="csrf")

    def login(self, request: Request, token: str) -> tuple[Who, str]:
        """The session that a token opens, and its cookie's value. Raises Unauthorized,
        TooManyAttempts."""
        self._logins.check(address(request))
        known = self._find(f"Bearer {token.strip()}".encode())
        if known is None:
            self._logins.failed(address(request))
            log.warning("a login from %s with a wrong token", address(request))
            raise Unauthorized("no such token; it is OPERATOR_TOKEN or VIEWER_TOKEN")
        nonce = secrets.token_urlsafe(16).encode()
        cookie = known.signer.sign(nonce).decode()
        return Who(known.name, known.role, _csrf(known, nonce)), cookie

    def keep(self, request: Request, response: Response, cookie: str) -> None:
        """Give the browser its session."""
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=LIFE,
            path="/",
            secure=_secure(request),
            httponly=True,
            samesite="strict",
        )

    def end(self, request: Request, response: Response) -> None:
        """Take it from the browser."""
        response.delete_cookie(
            COOKIE, path="/", secure=_secure(request), httponly=True, samesite="strict"
        )


def _csrf(known: _Known, nonce: bytes) -> str:
    return hmac.new(known.key, b"csrf\0" + nonce, hashlib.sha256).hexdigest()


def _secure(request: Request) -> bool:
    """Whether the browser came by https, be it only to a proxy before us."""
    said = request.headers.get("x-forwarded-proto", "")
    origin = request.headers.get("origin", "")
    return request.url.scheme == "https" or said == "https" or origin.startswith("https://")


def address(request: Request) -> str:
    return request.client.host if request.client else ""


def is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/x-www-form-urlencoded"


async def form(request: Request) -> dict[str, str]:
    """The fields of a form, read once; of several of a name the last. Raises TooLarge."""
    known = getattr(request.state, "form", None)
    if known is None:
        body = await read_body(request.scope, request.receive, FORM)
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        known = request.state.form = dict(pairs)
    return dict(known)
