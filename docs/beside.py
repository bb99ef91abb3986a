"""A hook of mkdocs: files of the repository that the pages link to come along, as beside/….

On the repository's own page a link such as ../SECURITY.md leads to the file; in the site there is
nothing above docs/, so such a file is copied, and links to and from it are turned accordingly.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = "beside"
_LINK = re.compile(r"""(\]\(|<img src=")([^)"\s#]+)(#[^)\s]*)?(\)|")""")
_CODE = re.compile(r"^( *)```.*?^\1```|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def place(name: str) -> str:
    """Where a file of the repository is in the site's sources."""
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{BESIDE}/{name}"


def origin(src_uri: str) -> str:
    """The file of the repository that a source of the site was made of."""
    found = src_uri.removeprefix(f"{BESIDE}/")
    return found if src_uri.startswith(f"{BESIDE}/") else f"docs/{src_uri}"


def target(here: str, link: str) -> str | None:
    """The file of the repository that a link of the file `here` leads to; None: elsewhere."""
    if re.match(r"[a-z]+:", link):
        return None
    found = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    if (ROOT / found / "README.md").is_file():  # what is shown of a folder
        found = f"{found}/README.md"
    elif (ROOT / found).is_dir():  # or, where nothing says what is in it, its first file
        first = sorted(path.name for path in (ROOT / found).iterdir() if path.is_file())
        found = f"{found}/{first[0]}" if first else found
    return None if found.startswith("..") or not (ROOT / found).is_file() else found


def links(text: str, here: str) -> set[str]:
    """The files of the repository that a page links to."""
    found = (target(here, one[2]) for one in _LINK.finditer(_CODE.sub("", text)))
    return {one for one in found if one}


def on_config(config: Any) -> Any:
    """Each decision under its heading; what has no place in the menu yet comes last."""
    docs = ROOT / "docs"
    decisions = ["adr/README.md", *sorted(f"adr/{path.name}" for path in docs.glob("adr/0*.md"))]
    for _, part in (item for section in config.nav for item in section.items()):
        for entry in part if isinstance(part, list) else ():
            if entry.get("Decisions"):
                entry["Decisions"] = decisions
    known = set(_named(config.nav))
    others = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - known
    if others:
        config.nav.append({"More": sorted(others)})
    return config


def _named(nav: Any) -> Iterator[str]:
    """All pages of a menu."""
    if isinstance(nav, str):
        yield nav
    else:
        for one in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(one)


def on_files(files: Files, config: Any) -> Files:
    """All that pages link to outside of docs/, and what those link to in turn."""
    todo = [origin(page.src_uri) for page in files.documentation_pages()]
    taken = set(todo)
    while todo:
        here = todo.pop()
        for name in links((ROOT / here).read_text("utf-8"), here) - taken:
            taken.add(name)
            if not name.startswith("docs/"):
                path = str(ROOT / name)
                files.append(File.generated(config, place(name), abs_src_path=path))
            if name.endswith(".md"):
                todo.append(name)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they are in the repository become those of the site."""
    here = origin(page.file.src_uri)

    def turned(found: re.Match[str]) -> str:
        name = target(here, found[2])
        if name is None:
            return found[0]
        path = posixpath.relpath(place(name), posixpath.dirname(page.file.src_uri))
        return f"{found[1]}{path}{found[3] or ''}{found[4]}"

    return _LINK.sub(turned, markdown)
