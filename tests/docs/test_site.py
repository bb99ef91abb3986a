"""The site builds without a warning, and every link in it leads somewhere."""

from __future__ import annotations

import os
import posixpath
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.docs.pages import pages
from tests.rig import ROOT

ENV = os.environ | {"NO_MKDOCS_2_WARNING": "1"}


class Page(HTMLParser):
    """Where a page leads to, what it loads, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a" and "href" in found:
            self.leads.append(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon"):
            self.loads.append(found["href"])
        elif "src" in found:
            self.loads.append(found["src"])


def build(folder: Path, config: str = "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--config-file", config]
    return subprocess.run(
        [*command, "--site-dir", str(folder)], cwd=ROOT, env=ENV, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    found = {
        path.relative_to(folder).as_posix(): Page(path.read_text("utf-8"))
        for path in folder.rglob("*.html")
    }
    for path in folder.rglob("*"):
        found.setdefault(path.relative_to(folder).as_posix(), Page(""))
    return found


def aim(page: str, link: str) -> tuple[str, str]:
    """The file of the site and the anchor that a link of a page leads to."""
    parts = urlsplit(link)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
    return (path if parts.path else page), unquote(parts.fragment)


def test_every_link_leads_somewhere(site: dict[str, Page]) -> None:
    wrong, seen = [], 0
    for name, page in site.items():
        if name == "404.html":  # its links are those of the address at which it is shown
            continue
        for link in page.leads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.scheme not in ("http", "https", "mailto") or not parts.netloc:
                    wrong.append(f"{name}: {link}")
                continue
            seen += 1
            path, anchor = aim(name, link)
            if path not in site or (anchor and anchor not in site[path].ids | {"__top"}):
                wrong.append(f"{name}: {link}")
    assert wrong == []
    assert seen > 1000


def test_nothing_is_loaded_from_elsewhere(site: dict[str, Page]) -> None:
    loads = {
        (name, link) for name, page in site.items() if name != "404.html" for link in page.loads
    }
    assert len(loads) > 50
    assert [one for one in loads if urlsplit(one[1]).netloc] == []
    assert [(name, link) for name, link in loads if aim(name, link)[0] not in site] == []


def test_every_document_is_in_the_site_and_in_its_menu(site: dict[str, Page]) -> None:
    menu = {aim("index.html", link)[0] for link in site["index.html"].leads}
    for path in (ROOT / "docs").rglob("*.md"):
        html = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        if path.name == "README.md":
            html = html.replace("README", "index")
        assert html in site
        assert html in menu


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """What our strictness is worth, on a page with one link."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert "\nstrict: true\n" in text
    kept = yaml.safe_load(text[text.index("\nvalidation:") : text.index("\nnav:")])
    config = {"site_name": "x", "strict": True, "plugins": []} | kept
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "docs").mkdir()
    for page, code in (("# Here\n[here](#here)", 0), ("# Here\n[gone](#gone)", 1)):
        (tmp_path / "docs" / "index.md").write_text(page)
        done = build(tmp_path / "out", str(tmp_path / "mkdocs.yml"))
        assert done.returncode == code, done.stderr


def test_every_adr_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text("utf-8")
    assert [
        path.name for path in sorted(folder.glob("0*.md")) if f"({path.name})" not in index
    ] == []


def test_pages_are_found() -> None:
    assert len(pages()) > 25
