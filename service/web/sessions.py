"""Log in and out; who one is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.errors import ApiError, BadRequest, Forbidden
from service.web import auth
from service.web.auth import COOKIE, FORM, Access, Who
from service.web.http import JSON, json_object

Note = Callable[[Who, str, str, str], Awaitable[None]]


class Sessions:
    """The endpoints. `note` writes down who did what."""

    def __init__(self, access: Access, note: Note) -> None:
        self._access = access
        self._note = note

    async def show(self, request: Request) -> Response:
        """GET /session"""
        return JSON(_shown(request.state.who))

    async def login(self, request: Request) -> Response:
        """POST /login, of a program (JSON) or a form."""
        if not auth.is_form(request):
            body = await json_object(request, FORM)
            token = body.get("token")
            if not isinstance(token, str):
                raise BadRequest('"token" is missing: the token, as a string', code="bad_field")
            who, cookie = self._access.login(request, token)
            answer: Response = JSON(_shown(who))
        else:
            fields = await auth.form(request)
            to = inside(fields.get("next", "/"))
            try:
                who, cookie = self._access.login(request, fields.get("token", ""))
            except ApiError as error:
                back = f"/login?error={error.code}&next={quote(to)}"
                return RedirectResponse(back, status_code=303)
            answer = RedirectResponse(to, status_code=303)
        await self._note(who, "login", "", "ok")
        self._access.keep(request, answer, cookie)
        return answer

    async def logout(self, request: Request) -> Response:
        """POST /logout"""
        if (who := self._access.session(request.cookies.get(COOKIE))) is not None:
            await self._access.guard(request, who)
        elif request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Forbidden("a page of another site asks", code="csrf")
        form = auth.is_form(request)
        answer = RedirectResponse("/login", status_code=303) if form else JSON({"ok": True})
        self._access.end(request, answer)
        return answer


def _shown(who: Who) -> dict[str, str | None]:
    return {"name": who.name, "role": who.role, "csrf": who.csrf}


def inside(to: str) -> str:
    """A path of this service, wherever the form says."""
    inside = to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable()
    return to if inside and "\\" not in to else "/"
