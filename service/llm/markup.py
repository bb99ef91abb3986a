"""What a model wrote → what its user may see: the answer apart from reasoning and tool calls. Pure.

Servers without a parser for their model hand over its text as the model writes it: `<think>`
blocks, the channels of gpt-oss, end tokens, tool calls. One machine takes that apart, in one
piece or in deltas, so that both give the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from service.llm.markup_prose import BETWEEN, LINE, mentioned, rest_of_line
from service.llm.markup_text import VisibleText
from service.llm.markup_tokens import (
    CLOSES,
    LONGEST,
    TOKENS,
    TokenKind,
    function_tag,
    may_begin,
    token_at,
)

_SPECIAL = re.compile(r"[<\[◁]")
_CHUNK = 4000  # characters taken at once: what is kept back is copied often
_HEADER = 200
_CHANNEL = re.compile(r"\s*(?:assistant)?(analysis|commentary|final)(?=<\|)")
# gpt-oss where the server drops special tokens: "analysisThe user …assistantfinalHello".
_BARE = re.compile(r"\s*analysis(?=[A-Z“\"'])")
_BARE_END = "assistantfinal"


@dataclass(frozen=True, slots=True)
class Separated:
    """`text` is for the user; `reasoning` and `calls` (tool calls with their tags) are not."""

    text: str
    reasoning: str = ""
    calls: tuple[str, ...] = ()


def separate(text: str, *, inside: bool = False, cut: bool = False) -> Separated:
    """Take a whole answer apart. `cut`: it hit its limit. `inside`: see Separator."""
    separator = Separator(inside=inside)
    separator.feed(text)
    separator.end(cut=cut)
    return separator.separated


class _State(Enum):
    VISIBLE = auto()
    REASONING = auto()
    CALL = auto()
    HEADER = auto()
    DONE = auto()


class Separator:
    """Takes an answer apart while it comes.

    `inside`: the text may begin inside reasoning that was opened in the prompt (`thinks`), so
    nothing is handed out before that is known. Where it was not foreseen, a lone `</think>`
    makes all that was handed out reasoning: then `restarted` is true after that `feed`.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self.restarted = False
        self._inside = inside
        self._state = _State.VISIBLE
        self._pending = ""
        self._visible = VisibleText()
        self._given = False
        self._struck = False  # "<s>" was shown: "</s>" is HTML here
        self._spared = 0  # closing tags to come that a sentence only speaks of
        self._cut = False
        self._reasoning: list[str] = []
        self._calls: list[list[str]] = []
        self._call_end = ""
        self._header = ""
        self._channels = False
        self._bare = False
        self._line = ""  # of the reasoning

    def feed(self, delta: str) -> str:
        """The text for the user that is certain now."""
        self.restarted = False
        for at in range(0, len(delta), _CHUNK):
            self._pending += delta[at : at + _CHUNK]
            self._run(final=False)
        return self._hand_out()

    def sure(self) -> None:
        """The server hands over reasoning in a field of its own: nothing begins inside it."""
        self._inside = False

    def end(self, *, cut: bool = False) -> str:
        """The rest, when no more comes. `cut`: the answer hit its token limit."""
        self.restarted, self._cut = False, cut
        self._run(final=True)
        if self._inside and cut and not self._reasoning:
            self._retract()
        self._inside = False
        return self._hand_out()

    @property
    def separated(self) -> Separated:
        """What came so far; complete after `end`."""
        calls = tuple("".join(parts) for parts in self._calls)
        return Separated(str(self._visible), "".join(self._reasoning).strip(), calls)

    def _hand_out(self) -> str:
        if self._inside:
            return ""
        text = self._visible.new()
        self._given = self._given or bool(text)
        return text

    def _run(self, *, final: bool) -> None:
        while self._pending and self._state is not _State.DONE:
            begins = self._state is _State.VISIBLE and not self._visible and not self._channels
            if begins and self._wait_for_channel(final):
                return
            if self._bare and self._run_bare(final):
                return
            found = _SPECIAL.search(self._pending)
            if found is None:
                self._take(self._pending)
                self._pending = ""
                return
            self._take(self._pending[: found.start()])
            self._pending = self._pending[found.start() :]
            if not self._step(final):
                return
        self._pending = ""

    def _wait_for_channel(self, final: bool) -> bool:
        """At the very start a channel's name may stand alone. True: more has to come."""
        if found := _CHANNEL.match(self._pending):
            self._enter(_State.HEADER)
            self._header, self._channels = found[1], True
            self._pending = self._pending[found.end() :]
        elif found := _BARE.match(self._pending):
            self._enter(_State.REASONING)
            self._channels = self._bare = True
            self._pending = self._pending[found.end() :]
        elif not final and not self._visible.line.strip():
            word = self._pending.strip().removesuffix("<")
            names = ("analysis", "commentary", "final")
            starts = (*names, *(f"assistant{name}" for name in names))
            return bool(word) and any(start.startswith(word) for start in starts)
        return False

    def _run_bare(self, final: bool) -> bool:
        at = self._pending.find(_BARE_END)
        if at < 0:
            keep = 0 if final else _overlap(self._pending, _BARE_END)
            cut = len(self._pending) - keep
            self._take(self._pending[:cut])
            self._pending = self._pending[cut:]
            return True
        self._take(self._pending[:at])
        self._pending = self._pending[at + len(_BARE_END) :]
        self._bare = False
        self._enter(_State.VISIBLE)
        return False

    def _step(self, final: bool) -> bool:
        """Judge what stands at the start of `_pending`. False: more has to come."""
        token = token_at(self._pending)
        if token is None:
            if not final and len(self._pending) < LONGEST and may_begin(self._pending.lower()):
                return False
            self._skip_as_text(1)
            return True
        after = self._pending[len(token) :]
        kind, end = TOKENS.get(token.lower()) or function_tag(token)
        match self._state:
            case _State.CALL:
                self._in_call(token, kind)
                return True
            case _State.HEADER:
                self._in_header(token, kind)
                return True
        if not final and len(after) < 2:
            return False
        if self._state is _State.REASONING:
            self._in_reasoning(token, kind, after)
            return True
        return self._in_visible(token, kind, end, after, final)

    def _in_call(self, token: str, kind: TokenKind) -> None:
        if token.lower() == self._call_end:
            self._skip_as_text(len(token))
            self._enter(_State.VISIBLE)
        elif kind is TokenKind.TURN_END:
            self._pending = self._pending[len(token) :]
            self._enter(_State.HEADER if self._channels else _State.DONE)
        else:
            self._skip_as_text(len(token))

    def _in_header(self, token: str, kind: TokenKind) -> None:
        self._pending = self._pending[len(token) :]
        if kind is TokenKind.CHANNEL:
            self._header += " "
        if kind is TokenKind.HEADER_END:
            self._enter(_State.VISIBLE)
        if kind is not TokenKind.MESSAGE:
            return
        words = self._header.split()
        if words and words[0] in ("user", "system", "developer", "tool"):
            self._enter(_State.DONE)
        elif any(word.startswith("to=") for word in words):
            head = f"<|channel|>{' '.join(words)}<|message|>"
            self._enter(_State.CALL)
            self._calls[-1].append(head)
            self._call_end = ""
        elif "final" in words or words in ([], ["assistant"]):
            self._enter(_State.VISIBLE)
        else:
            self._enter(_State.REASONING)

    def _in_reasoning(self, token: str, kind: TokenKind, after: str) -> None:
        ends_turn = kind in (TokenKind.TURN_END, TokenKind.TURN) and not mentioned(
            self._line, after
        )
        if kind is TokenKind.CLOSE:
            self._pending = after
            self._enter(_State.VISIBLE)
        elif self._channels and kind in (TokenKind.CHANNEL, TokenKind.TURN_END):
            self._pending = after
            self._enter(_State.HEADER)
        elif ends_turn and kind is TokenKind.TURN_END:
            self._pending = ""
            self._enter(_State.DONE)
        else:
            self._skip_as_text(len(token))

    def _in_visible(self, token: str, kind: TokenKind, end: str, after: str, final: bool) -> bool:
        code = self._visible.in_code(after, final)
        if code is None:
            return False
        if code:
            self._skip_as_text(len(token))
            return True
        spoken_of = mentioned(self._visible.line, after)
        if kind is TokenKind.CLOSE and self._spared:
            spoken_of, self._spared = True, self._spared - 1
        if kind is TokenKind.OPEN and (spoken_of or mentioned(self._visible.line, after, cjk=True)):
            meant = self._meant(after, final)
            if meant is None:
                return False
            spoken_of = not meant
        if spoken_of or not self._counts(kind, token):
            self._struck = self._struck or kind is TokenKind.START
            self._skip_as_text(len(token))
            return True
        self._pending = after
        match kind:
            case TokenKind.OPEN:
                self._enter(_State.REASONING)
            case TokenKind.CLOSE:
                self._retract()
            case TokenKind.CALL:
                self._enter(_State.CALL)
                self._calls[-1].append(token)
                self._call_end = end
            case TokenKind.TAIL:
                self._visible.hold(token)
            case TokenKind.CHANNEL | TokenKind.TURN:
                self._channels = self._channels or kind is TokenKind.CHANNEL
                if self._visible and not self._channels:
                    self._enter(_State.DONE)
                else:
                    self._enter(_State.HEADER if end == "header" else self._state)
            case TokenKind.TURN_END if self._channels:
                self._enter(_State.HEADER)
            case TokenKind.TURN_END if self._visible:
                self._enter(_State.DONE)
        return True

    def _counts(self, kind: TokenKind, token: str) -> bool:
        """Whether a token means something at this place of the visible text."""
        match kind:
            case TokenKind.WRAPPER:
                opens = not token.startswith("</")
                return bool(self._reasoning) and (not self._visible if opens else True)
            case TokenKind.START:
                return not self._visible
            case TokenKind.TAIL:
                return bool(self._visible) and not self._struck
            case TokenKind.MESSAGE | TokenKind.HEADER_END:
                return False
        return True

    def _meant(self, after: str, final: bool) -> bool | None:
        """Whether an opening tag within a sentence has its end in the same line."""
        line, complete = rest_of_line(after, final)
        found = CLOSES.search(line)
        if found is None:
            return self._cut and final if complete else None
        inner, rest = line[: found.start()], line[found.end() :]
        if len(rest) < 2 and not complete:
            return None
        if BETWEEN.fullmatch(inner) and mentioned(inner, rest, cjk=True):
            self._spared += 1
            return False
        return True

    def _skip_as_text(self, length: int) -> None:
        self._take(self._pending[:length])
        self._pending = self._pending[length:]

    def _enter(self, state: _State) -> None:
        if state is _State.VISIBLE and self._state is not _State.VISIBLE:
            self._visible.resume()
        if state is _State.REASONING and self._reasoning:
            self._reasoning.append("\n")
        if state is _State.REASONING or self._state is _State.REASONING:
            self._inside = False
        if state is _State.CALL:
            self._calls.append([])
        if state is _State.HEADER:
            self._header = ""
        self._state = state
        self._line = ""

    def _retract(self) -> None:
        """All that was taken for the answer was reasoning."""
        self.restarted = self.restarted or self._given
        self._given = False
        if self._reasoning:
            self._reasoning.append("\n")
        self._reasoning.append(self._visible.take_back())
        self._inside = False

    def _take(self, text: str) -> None:
        """Text that means nothing but itself, in the present state."""
        if not text:
            return
        match self._state:
            case _State.VISIBLE:
                self._visible.show(text)
            case _State.REASONING:
                self._reasoning.append(text)
                self._line = (self._line + text).rpartition("\n")[2][-LINE:]
            case _State.CALL:
                self._calls[-1].append(text)
            case _State.HEADER:
                head, newline, rest = text.partition("\n")
                self._header = (self._header + head)[-_HEADER:]
                if newline and not self._channels:  # <|im_start|>assistant
                    self._enter(_State.VISIBLE)
                    self._visible.show(rest)


def _overlap(text: str, end: str) -> int:
    """How many characters at the end of `text` begin `end`."""
    return next((n for n in range(len(end) - 1, 0, -1) if text.endswith(end[:n])), 0)
