"""`emqx-gpt init`: a first flows.toml and .env, by a few questions."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from service import flows
from service.cli.common import say
from service.cli.env_file import ENV, TOKENS, add_settings, new_token
from service.errors import ConfigError, Fault
from service.flows.tables import FLOW_NAME

FLOWS = Path("flows.toml")
DOES = "Answer in one or two short sentences."
MODEL = flows.DEFAULT_MODEL
OPENAI = "https://api.openai.com/v1"
URL = r"https?://[^\s/]+\S*"


@dataclass(slots=True)
class Answers:
    """What was said on the command line; None where it is to be asked, or the default."""

    name: str
    does: str | None
    request: str | None
    reply: str | None
    memory: bool | None
    model: str | None
    base_url: str | None
    key_file: Path | None


def initialise(given: Answers, console: Console, *, ask: bool) -> None:
    """Write both files. Raises ConfigError for an answer that can't be used, if nothing is asked.

    An existing flows.toml gets one flow more; what an existing .env sets stays as it is.
    """
    have = flows.read(FLOWS) if FLOWS.exists() else ""
    if have and f"[flows.{given.name}]" in have:
        hint = "choose another one: emqx-gpt init --name NAME"
        fault = Fault(str(FLOWS), f"has a flow {given.name!r} already", hint=hint)
        raise ConfigError(str(fault), (fault,))
    if not re.fullmatch(FLOW_NAME, given.name):
        fault = Fault("--name", f"{given.name!r} can't be a flow's name", hint="letters, digits, _")
        raise ConfigError(str(fault), (fault,))
    if ask:
        console.print("A first flow, by a few questions; Enter takes what is in [brackets].\n",
                      markup=False)  # fmt: skip
    topic = f"{'chat' if given.name == 'first' else given.name}/${{user}}/in"
    made = Answers(given.name, DOES, topic, None, False, MODEL, OPENAI, given.key_file)

    def valid(field: str, value: str) -> str | None:
        """Why this answer can't be used, in the words of `check`."""
        setattr(made, field, value)
        return _fault(have, made, field)

    def asked(field: str, question: str, default: str) -> None:
        value = getattr(given, field)
        if value is None and ask:
            value = _prompt(question, default, lambda text: valid(field, text))
        elif fault := valid(field, value or default):
            raise ConfigError(fault, (Fault(f"--{field.replace('_', '-')}", fault),))
        setattr(made, field, value or default)

    asked("does", "What should it do?", DOES)
    asked("request", "Topic of the messages (${name}: any level)?", topic)
    asked("reply", "Topic of the replies?", reply_topic(made.request or topic))
    made.memory = given.memory if given.memory is not None else (
        typer.confirm("Should it remember a conversation?", default=True) if ask else True
    )  # fmt: skip
    asked("base_url", "Which server runs the model?", OPENAI)
    asked("model", "Which model?", MODEL)
    key = _key(made, ask)
    _write(FLOWS, have + ("\n" if have else "") + flow_text(made, defaults=not have))
    console.print(f"\n{FLOWS}: flow {made.name}", markup=False, soft_wrap=True)
    _keep(made, key, console)


def initialise_env(given: Answers, console: Console, *, ask: bool) -> None:
    """Write `.env` only. Raises ConfigError."""
    address = given.base_url or OPENAI
    if not re.fullmatch(URL, address):
        fault = Fault("--base-url", f"{address!r} is not a URL", hint="it begins with https://")
        raise ConfigError(str(fault), (fault,))
    _keep(given, _key(given, ask), console)


def _keep(made: Answers, key: str, console: Console) -> None:
    values = {"OPENAI_API_KEY": key}
    if made.base_url not in (None, OPENAI):
        values["OPENAI_BASE_URL"] = made.base_url or ""
    added = write_env(ENV, values)
    console.print(f"{ENV}: {', '.join(added) or 'nothing to add'} (only you can read it)\n",
                  markup=False, soft_wrap=True)  # fmt: skip


def reply_topic(request: str) -> str:
    """A reply topic beside a request topic: `a/${x}/in` → `a/${x}/out`, `a/+` → `reply/a`."""
    kept = [level for level in request.split("/") if level not in ("+", "#")]
    said = {"in": "out", "ask": "say", "request": "response", "frage": "antwort", "rein": "raus"}
    if any(level in said for level in kept):
        return "/".join(said.get(level, level) for level in kept)
    if request.endswith(("+", "#")):
        return "/".join(["reply", *kept])  # what it ends with would take the reply as well
    return "/".join([*kept, "reply"])


def flow_text(made: Answers, *, defaults: bool) -> str:
    """The flow as TOML; `defaults`: the file is new, so the model stands once for all flows."""
    model = f"model = {_quoted(made.model or MODEL)}"
    lines = []
    if defaults:
        lines = [
            "# What emqx-gpt answers, and how. Every key is explained in docs/flows.md;",
            "# emqx-gpt check finds mistakes, emqx-gpt demo plays it on this machine.",
            "",
            "[defaults]                       # any key of a flow",
            model,
            "",
        ]
    lines += [
        f"[flows.{made.name}]",
        f"request = {_quoted(made.request or '')}",
        f"reply   = {_quoted(made.reply or reply_topic(made.request or ''))}",
        f"system  = {_quoted(made.does or DOES)}",
    ]
    if made.memory:
        lines.append('history = { messages = 10, ttl = "24h" }')
    if not defaults:
        lines.append(f"{model[:5]}   {model[6:]}")
    return "\n".join(lines) + "\n"


def write_env(path: Path, values: dict[str, str]) -> list[str]:
    """Add what is not set yet, and tokens of one's own; 0600. Returns the names added."""
    tokens = {name: new_token() for name in TOKENS}
    emqx = "# For a real EMQX, from its dashboard (System, API Keys):\n"
    emqx += "EMQX_API_KEY=\nEMQX_API_SECRET=\n"
    if path.exists() and re.search(r"^#?\s*EMQX_API_KEY=", path.read_text("utf-8"), re.MULTILINE):
        emqx = ""
    return add_settings(path, {**values, **tokens}, comment=emqx)


def _key(made: Answers, ask: bool) -> str:
    if made.key_file is not None:
        try:
            if str(made.key_file) == "-":
                return sys.stdin.read().strip()
            return made.key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            fault = Fault("--key-file", f"can't read {made.key_file}: {reason}")
            raise ConfigError(str(fault), (fault,)) from None
    if not ask:
        return ""
    question = "Its API key (hidden; Enter for none: the demo's offline model)"
    return str(typer.prompt(question, default="", hide_input=True, show_default=False)).strip()


def _prompt(question: str, default: str, fault: Callable[[str], str | None]) -> str:
    """Ask until the answer can be used."""
    while True:
        said = str(typer.prompt(question, default=default)).strip()
        if not (why := fault(said)):
            return said
        say(f"  {why}", err=True)


_KEYS = {"does": "system", "request": "request", "reply": "reply", "model": "model"}


def _fault(have: str, made: Answers, field: str) -> str | None:
    """What `check` says of the file as it would be, if it is about this answer."""
    if not re.fullmatch(URL, made.base_url or OPENAI):
        return f"{made.base_url!r} is not a URL; it begins with http:// or https://"
    text = have + "\n" + flow_text(made, defaults=not have)
    _, faults = flows.parse(text, str(FLOWS))
    about = f"flows.{made.name}.{_KEYS.get(field, '')}"
    ours = [fault for fault in faults if not fault.warning and about in str(fault)]
    if not ours or field not in _KEYS:
        return None
    hint = f" ({ours[0].hint})" if ours[0].hint else ""
    return f"{ours[0].message}{hint}".removeprefix(f"{about}: ")


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, text: str) -> None:
    """In one go. Raises ConfigError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, "utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        fault = Fault(str(path), f"can't be written: {error.strerror}",
                      hint="run it in a folder of your own")  # fmt: skip
        raise ConfigError(str(fault), (fault,)) from None
