"""The documents say what is: settings, commands, links, make targets. No traces of a machine."""

import re
import subprocess
from pathlib import Path

import pytest
import typer

from service import flows, settings
from service.cli.main import app
from service.demo.samples import samples
from service.demo.words import words_of
from service.settings import Settings

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")
SETTINGS = ("docs/settings.md", "docs/settings.zh-CN.md")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "emqx" / "README.md",
    ]
)
NONE = "–"

_CODE = re.compile(r"^( *)```[a-z]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(text: str) -> list[str]:
    return [found[2] for found in _CODE.finditer(text)]


def code(text: str) -> list[str]:
    """Code blocks line by line, and code in running text."""
    lines = [line for block in blocks(text) for line in block.splitlines()]
    return lines + _SPAN.findall(_CODE.sub("", text))


# Settings


def settings_table(name: str) -> dict[str, str]:
    rows = re.findall(r"^\| `([A-Z_]+)`(?: \\\*)? \| ([^|]+) \|", read(name), re.MULTILINE)
    return {key: default.strip().strip("`") for key, default in rows}


@pytest.mark.parametrize("page", SETTINGS)
def test_every_setting_is_in_the_table(page):
    assert list(settings_table(page)) == [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize("page", SETTINGS)
@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_table_tells_the_default(page, name):
    default = Settings.model_fields[name].default
    shown = settings_table(page)[name.upper()]
    if default is None:
        assert shown == NONE
    else:
        assert getattr(settings.load({}, **{name: shown}), name) == default


@pytest.mark.parametrize("page", SETTINGS)
def test_secrets_are_marked(page):
    marked = re.findall(r"^\| `([A-Z_]+)` \\\* \|", read(page), re.MULTILINE)
    assert sorted(marked) == sorted(settings.SECRETS)


# Commands

_CALL = re.compile(r"(?<![\w./@=-])(?:\.venv/bin/)?emqx-gpt(?= )(.*)")


def calls() -> list[tuple[str, str]]:
    found = []
    for name in DOCUMENTS:
        for line in code(read(name)):
            if match := _CALL.search(line.split(" #")[0]):
                found.append((name, match[1].strip()))
    return found


def unknown_in(call: str) -> str | None:
    """The first word of a command line that the command does not know."""
    words = call.split()
    while words and words[0] == "emqx-gpt":  # docker compose exec emqx-gpt emqx-gpt …
        words.pop(0)
    command = typer.main.get_command(app)
    while words:
        word = words.pop(0)
        if word == "…":
            return None
        if word.startswith("-"):
            found = next((each for each in command.params if word.split("=")[0] in each.opts), None)
            if found is None:
                return word
            if "=" not in word and not getattr(found, "is_flag", False) and words:
                words.pop(0)  # the option's value
        elif hasattr(command, "commands"):
            if word.rstrip(",.") not in command.commands:
                return word
            command = command.commands[word.rstrip(",.")]
        else:
            return None  # an argument; what follows is the shell's
    return None


def test_the_readme_names_commands():
    named = {call for name, call in calls() if name in READMES}
    assert {"emqx apply", "emqx diff", "emqx remove", "emqx doctor", "check"} <= named
    assert unknown_in("emqx aply") == "aply"
    assert unknown_in("serve --aply") == "--aply"
    assert unknown_in("--env demo.env requests lst") == "lst"


@pytest.mark.parametrize(("document", "call"), calls())
def test_a_command_exists(document, call):
    assert unknown_in(call) is None


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    named = set()
    for name in DOCUMENTS:
        for line in code(read(name)):
            named |= set(re.findall(r"(?:^|[;&] *)make ([a-z]+)", line.strip()))
    assert {"demo", "test", "serve"} <= named
    assert named <= targets


@pytest.mark.parametrize("readme", READMES)
def test_what_the_readme_shows_of_the_demo_is_what_the_demo_shows(readme):
    """Each question in the README's pictures of the demo is one that the play publishes."""
    shipped = flows.load(ROOT / "flows.toml")
    asked = {
        (sample.topic, sample.payload.decode())
        for name in ("chat", "alarm", "house")
        for sample in samples(shipped.flows[name], words_of("zh" if "zh" in readme else "en"))
    }
    shown = {
        (topic, said)
        for topic, said in re.findall(r"^  (\S+) ◀ (.*)$", read(readme), re.MULTILINE)
        if any(flow.match(topic) is not None for flow in shipped.flows.values())
    }
    assert shown
    assert shown <= asked


# Links


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ +(.+)$", _CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> list[tuple[str, str]]:
    found = []
    for name in DOCUMENTS:
        text = _CODE.sub("", read(name))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                found.append((name, target))
    return found


@pytest.mark.parametrize(("document", "target"), links())
def test_a_link_leads_somewhere(document, target):
    path, _, anchor = target.partition("#")
    aim = (ROOT / document).parent / path if path else ROOT / document
    assert aim.exists()
    assert aim.resolve().is_relative_to(ROOT.resolve())
    if anchor:
        assert anchor in anchors(aim.read_text("utf-8"))


# Traces

# In pieces, so that this file does not find itself.
REGISTRIES = re.compile(
    "|".join(
        re.escape(first + second)
        for first, second in [
            ("pypi", ".org"),
            ("python", "hosted.org"),
            ("registry.", "npmjs.org"),
            ("registry.", "yarnpkg.com"),
            ("crates", ".io"),
            ("ruby", "gems.org"),
            ("proxy.golang", ".org"),
            ("conda", ".anaconda.org"),
        ]
    )
)
MACHINE = re.compile(r"(?<![\w}$#+*./~-])(?:/(?:work|root|Users|home)/[\w.-]+|[A-Z]:\\Users\\)")


def tracked() -> list[str]:
    """What is in the repository, or would be with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = listed.stdout.decode().split("\0")
    return sorted(name for name in names if name and (ROOT / name).is_file())


def test_the_traces_would_be_found():
    assert REGISTRIES.search("from https://" + "pypi" + ".org/simple")
    for path in ("/work" + "/x", "/home" + "/sam/x", "/Users" + "/sam", "/root" + "/.cache"):
        assert MACHINE.search(f'"{path}"')
    assert not MACHINE.search("topics/home/ada/ask")
    assert not MACHINE.search("emqx-gpt.home/x")


def test_no_file_names_a_package_registry_or_a_machine():
    found = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for pattern in (REGISTRIES, MACHINE):
            found += [f"{name}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []
