"""Templates, languages, themes; texts of devices and models made safe to show."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from service.web.console.conversation import binary
from service.web.console.words import CHINESE

HERE = Path(__file__).parent
STATIC = HERE / "static"
LANGUAGES = {"en": "English", "zh": "中文"}
THEMES = ("auto", "light", "dark")
LANGUAGE, THEME = "emqx_gpt_lang", "emqx_gpt_theme"
YEAR = 365 * 86400  # seconds that a browser keeps a choice
MARKDOWN = 20_000  # characters of a text that are laid out; a longer one is shown as it is
CELLS = 20_000  # of its tables, likewise

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def _link(
    self: RendererHTML, tokens: list[Token], at: int, options: OptionsDict, env: EnvType
) -> str:
    tokens[at].attrSet("rel", "noopener noreferrer nofollow")
    tokens[at].attrSet("target", "_blank")
    return self.renderToken(tokens, at, options, env)


def _table(
    self: RendererHTML, tokens: list[Token], at: int, options: OptionsDict, env: EnvType
) -> str:
    """A wide one is scrolled by itself."""
    if tokens[at].nesting > 0:
        return '<div class="scroll" tabindex="0"><table>\n'
    return "</table></div>\n"


class _Markdown(MarkdownIt):
    """Links lead to other sites only: a reply must not speak for the console."""

    def validateLink(self, url: str) -> bool:
        return url.lower().startswith(("http://", "https://", "mailto:"))


# No HTML of the text's own, and no pictures: looking at a reply must not call a stranger's host.
_markdown = _Markdown("commonmark", {"html": False, "breaks": True})
_markdown.enable("table").enable("strikethrough").disable("image")
_markdown.add_render_rule("link_open", _link)
_markdown.add_render_rule("table_open", _table)
_markdown.add_render_rule("table_close", _table)


def markdown(text: str | None) -> Markup:
    """A reply as HTML; nothing of its own gets through."""
    if not text:
        return Markup("")
    if len(text) <= MARKDOWN and _cells(text) <= CELLS:
        tokens = _markdown.parse(text)
        if all(token.level < _markdown.options.maxNesting - 2 for token in tokens):
            # markdown-it escapes what it renders; raw HTML is off
            html = _markdown.renderer.render(tokens, _markdown.options, {})
            return Markup(html)  # noqa: S704
    return Markup("<pre>{}</pre>").format(text)


def _cells(text: str) -> int:
    """The most that tables of the text can have: a short row is filled up to the header's width."""
    lines = text.splitlines()
    return len(lines) * (1 + max((line.count("|") for line in lines), default=0))


def took(ms: float | None) -> str:
    """A length of time in few characters."""
    if ms is None:
        return "–"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes = int(ms // 60_000)
    if minutes < 60:
        return f"{minutes} min {int(ms // 1000) % 60} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def ago(iso: str | None) -> str:
    """How long ago."""
    if iso is None:
        return "–"
    return took(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(iso)).total_seconds() * 1000))


def span(start: str | None, end: str | None) -> str:
    """From one time to another."""
    if start is None or end is None:
        return "–"
    passed = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return took(passed.total_seconds() * 1000)


def number(value: float | None) -> str:
    """12,345 or 1.2 M."""
    if value is None:
        return "–"
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:.1f} M"
    return f"{value:,.0f}"


def money(usd: float | None) -> str:
    """US dollars; small sums keep two digits that count."""
    if usd is None:
        return "–"
    if usd == 0 or usd >= 0.1:
        return f"${usd:,.2f}"
    return f"${usd:.2g}" if usd >= 0.0001 else f"${usd:.6f}".rstrip("0")


def share(value: float | None) -> str:
    """Per cent, never rounded up to 100."""
    if value is None:
        return "–"
    cut = int(value * 1000) / 10
    return f"{cut:.0f} %" if cut == int(cut) else f"{cut:.1f} %"


def pretty(value: Any) -> str:
    """JSON to read; text stays as it is."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return str(value)
        if not isinstance(value, dict | list):
            return orjson.dumps(value).decode()
    return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()


def spoken(language: str, text: str, **values: Any) -> str:
    """The text in a language; what nobody has translated stays English."""
    text = CHINESE.get(text, text) if language == "zh" else text
    return text.format(**values) if values else text


def language_of(request: Request) -> str:
    """As chosen, else the first that the browser asks for and we speak."""
    chosen = request.cookies.get(LANGUAGE)
    if chosen in LANGUAGES:
        return str(chosen)
    for wanted in request.headers.get("accept-language", "")[:200].lower().split(","):
        if (name := wanted.strip()[:2]) in LANGUAGES:
            return name
    return "en"


def theme_of(request: Request) -> str:
    chosen = request.cookies.get(THEME)
    return str(chosen) if chosen in THEMES else "auto"


def _version() -> str:
    """Changes with any file of `static`, so that browsers may keep them."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        markdown=markdown,
        took=took,
        ago=ago,
        number=number,
        money=money,
        share=share,
        pretty=pretty,
    )
    made.tests["binary"] = binary
    made.globals.update(span=span, languages=LANGUAGES, themes=THEMES, static=_version())
    return made


def report(compared: Sequence[Mapping[str, Any]], totals: Mapping[str, Sequence[str]]) -> str:
    """A replay as one page that needs nothing beside it."""
    style = (STATIC / "console.css").read_text("utf-8")
    template = _environment().get_template("report.html")
    return template.render(compared=compared, totals=totals, style=Markup(style))  # noqa: S704


class Pages:
    """Makes pages of templates."""

    def __init__(self) -> None:
        self._jinja = _environment()

    async def page(
        self, request: Request, template: str, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        """A page in the language and the theme of who asks; made in a thread, since much of what
        it shows is of any length."""
        return await asyncio.to_thread(self._made, request, template, values, status)

    def _made(
        self, request: Request, template: str, values: Mapping[str, Any], status: int
    ) -> Response:
        language = language_of(request)

        def translate(text: str, **more: Any) -> str:
            return spoken(language, text, **more)

        text = self._jinja.get_template(template).render(
            _=translate,
            language=language,
            theme=theme_of(request),
            who=getattr(request.state, "who", None),
            path=request.url.path,
            here=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            **values,
        )
        body = text.encode("utf-8", "replace")  # a lone surrogate of a device
        return Response(body, status, dict(HEADERS), media_type="text/html")
