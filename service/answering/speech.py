"""A model's Markdown → what a loudspeaker says: plain sentences in one line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_BLANK = r"[^\S\n]"  # within a line: \s over many lines would be tried from each of them
_BEFORE = (
    (re.compile(r"(?<=\d) ?\* ?(?=\d)"), " × "),  # 2*3*4 is no emphasis
    (
        re.compile(rf"^({_BLANK}*)>(?={_BLANK}*[.,]*\d)", re.MULTILINE),
        r"\1\\>",
    ),  # "> 40 °C" is no quotation
    (re.compile(rf"^({_BLANK}*)[•●▪◦‣·]{_BLANK}*", re.MULTILINE), r"\1- "),
    (re.compile(r"【[^【】]*】|\[\^?\d+\](?!\()"), ""),  # notes and citations
    (
        re.compile(rf"^({_BLANK}*(?:[-*+]|\d+[.)]){_BLANK}+)\[[ xX]\]\s+", re.MULTILINE),
        r"\1",
    ),  # task lists
)
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u23e9-\u23fa\u231a\u231b\u2934\u2935"
    "\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u3030\u303d\u3297\u3299\ufe0e\ufe0f\u200d\u20e3"
    "\U000e0020-\U000e007f\u203c\u2049\u2122\u2139\u00a9\u00ae]+"
)
_SHORTCODE = re.compile(r"(?<!\S):[a-z][a-z0-9_+-]*:(?!\S)")
_URL = re.compile(
    r"<?(?:https?://|www\.)(?:www\.)?([^\s<>()/?#:，。；）]+)(?:[^\s<>()，。；）]*[^\s<>()，。；）.,!?;:])?>?",
    re.I,
)
_HASHTAG = re.compile(r"(?<![\w#])#+(?=[^\W\d_])")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--(?:(?!<!--).)*?-->", re.DOTALL)
_CJK = re.compile(r"[\u3001-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]")
# What CommonMark leaves, as of "**天气：**晴" or of marks without their end.
_LEFT = re.compile(r"\*{2,}|`+|~~+|(?<!\w)__|__(?!\w)|(?<!\s)\*|\*(?!\s)")
_SENTENCE_END = re.compile(r"[.!?…](?=\s)|[。！？]|\n")
_STREAMED = 20_000  # characters of a text that is said before its end
_OFTEN = 2000  # characters up to which it is, at the end of each sentence
_ENDS = ".!?:;,…。！？：；，、)）\"”’'»"


def spoken(text: str) -> str:
    """The text without Markdown, emoji, links and tables; numbers and units stay."""
    for pattern, instead in _BEFORE:
        text = pattern.sub(instead, text)
    sentences = [_clean(sentence) for sentence in _blocks(_MARKDOWN.parse(text))]
    return _joined([sentence for sentence in sentences if sentence])


def _blocks(tokens: Sequence[Token]) -> Iterator[str]:
    """The sentences of a document, block by block."""
    numbers = _numbers(tokens)
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.type == "table_open":
            end = next(i for i in range(at, len(tokens)) if tokens[i].type == "table_close")
            yield from _table(tokens[at:end])
            at = end
        elif token.type == "inline":
            block = tokens[at - 1]
            listed = numbers.get(at - 2, "") if block.type == "paragraph_open" else ""
            words = _inline(token.children or ())
            # The last line of plain text ends as its writer ended it.
            more = block.type == "heading_open" or token.level > 1 or at + 2 < len(tokens)
            yield listed + (_ended(words) if more else words)
        elif token.type in ("fence", "code_block"):
            yield from (_ended(line.strip()) for line in token.content.splitlines() if line.strip())
        elif token.type == "html_block":
            yield _TAG.sub(" ", token.content)
        at += 1


def _numbers(tokens: Sequence[Token]) -> dict[int, str]:
    """The numbers of a list's items, by their places, where they are more than that: "24.
    Dezember"."""
    found: dict[int, str] = {}
    lists: list[list[int]] = []  # the places of the items, for each list that is open
    for at, token in enumerate(tokens):
        if token.type in ("ordered_list_open", "bullet_list_open"):
            lists.append([])
        elif token.type == "list_item_open" and lists:
            lists[-1].append(at)
        elif token.type in ("ordered_list_close", "bullet_list_close") and lists:
            items = lists.pop()
            said = [tokens[item].info for item in items]
            if len(said) > 1 and said == [str(n + 1) for n in range(len(said))]:
                continue  # counted
            for item in items:
                if tokens[item].info:
                    found[item] = f"{tokens[item].info}{tokens[item].markup} "
    return found


def _inline(tokens: Sequence[Token]) -> str:
    words = []
    for token in tokens:
        match token.type:
            case "text" | "code_inline":
                words.append(token.content)
            case "softbreak" | "hardbreak":
                words.append("\n")
            case "image":
                words.append(token.content)
            case "html_inline" if token.content.lower().startswith("<br"):
                words.append("\n")
    lines = [line.strip() for line in "".join(words).split("\n")]
    return _joined([line for line in lines if line])


def _table(tokens: Sequence[Token]) -> Iterator[str]:
    """Each row as one sentence: "Kitchen: 21 °C", or with the names of its columns."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_inline(token.children or ()))
    head, *body = rows or [[]]
    for row in body or [head]:
        cells = [cell for cell in row if cell]
        if len(row) > 2 and body:
            named = zip(head[1:], row[1:], strict=False)
            cells = [f"{name} {cell}".strip() for name, cell in named if cell]
            yield _ended(f"{row[0]}: {', '.join(cells)}")
        elif cells:
            yield _ended(": ".join(cells))


def _clean(text: str) -> str:
    text = _URL.sub(lambda found: found[1], text)
    text = _LEFT.sub("", text)
    text = _HASHTAG.sub("", _SHORTCODE.sub("", _EMOJI.sub("", text)))
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" +([,.!?;:。，！？；：](?!\w))", r"\1", text)
    text = re.sub(r"\(\s*\)|\[\s*\]", "", text)
    return text.strip() if re.search(r"\w", text) else ""


def _ended(text: str) -> str:
    """With a full stop, in the script of the sentence, unless it has an end already."""
    text = _EMOJI.sub("", text).strip()
    if not text or text[-1] in _ENDS:
        return text
    return text + ("。" if _CJK.match(text[-1]) else ".")


def _joined(parts: Sequence[str]) -> str:
    """One line; between Chinese or Japanese characters stands no space."""
    line = ""
    for part in parts:
        close = (
            line and _CJK.match(line[-1]) and (_CJK.match(part[0]) or line[-1] in "。！？：，；")
        )
        line += part if close or not line else f" {part}"
    return line


class Speaking:
    """The same while the text comes: what is said of whole sentences, as far as they are sure.

    What comes later can change what was said (a lone "1." becomes a list): then `end` says that
    all has to be said anew.
    """

    def __init__(self) -> None:
        self._text = ""
        self._said = ""
        self._next = 0

    def feed(self, delta: str) -> str:
        """What can be said now beyond what was said before."""
        self._text += delta
        size = len(self._text)
        if not self._next <= size <= _STREAMED or not _SENTENCE_END.search(delta):
            return ""
        # All of it is looked at again each time: a long one less often.
        self._next = size + size // 8 if size > _OFTEN else 0
        ends = [found.end() for found in _SENTENCE_END.finditer(self._text)]
        return self._more(spoken(self._text[: ends[-1]])) or ""

    def end(self) -> tuple[str, bool]:
        """(the rest, whether it is all of it: what was said before no longer counts)"""
        whole = spoken(self._text) or self._text.strip()
        more = self._more(whole)
        return (whole, True) if more is None else (more, False)

    def _more(self, whole: str) -> str | None:
        if not whole.startswith(self._said):
            return None
        more = whole[len(self._said) :]
        self._said = whole
        return more
