"""The tokens that models write and users must not see, as data. Lower case."""

from __future__ import annotations

import re
from enum import Enum, auto


class TokenKind(Enum):
    """What a token does; the text of a table entry says more where a kind needs it."""

    OPEN = auto()  # reasoning begins
    CLOSE = auto()  # reasoning ends
    CALL = auto()  # a tool call begins, up to the token named beside it ("": to the end)
    CALL_END = auto()
    WRAPPER = auto()  # <answer> around what follows the reasoning
    START = auto()  # means nothing at the start
    TURN = auto()  # somebody's turn begins
    TURN_END = auto()  # the turn ends
    CHANNEL = auto()  # gpt-oss: a message's header begins
    MESSAGE = auto()  # gpt-oss: the header ends, its text begins
    HEADER_END = auto()  # Llama 3: the header ends
    TAIL = auto()  # counts only at the very end: "</s>" is HTML too
    DROPPED = auto()  # means nothing anywhere


_Token = tuple[TokenKind, str]
_REASONING = ("think", "thinking", "thought", "thoughts", "reasoning", "reason", "seed:think")
_CALLS = (
    *("tool_call", "tool_calls", "function_call", "function_calls"),
    *("minimax:tool_call", "|dsml|function_calls", "|dsml|tool_calls"),
)

TOKENS: dict[str, _Token] = {
    **{f"<{name}>": (TokenKind.OPEN, "") for name in _REASONING},
    **{f"</{name}>": (TokenKind.CLOSE, "") for name in _REASONING},
    "[think]": (TokenKind.OPEN, ""),  # Magistral
    "[/think]": (TokenKind.CLOSE, ""),
    "◁think▷": (TokenKind.OPEN, ""),  # Kimi-VL
    "◁/think▷": (TokenKind.CLOSE, ""),
    "<|channel>": (TokenKind.OPEN, ""),  # Gemma 4
    "<channel|>": (TokenKind.CLOSE, ""),
    "<|begin_of_thought|>": (TokenKind.OPEN, ""),
    "<|end_of_thought|>": (TokenKind.CLOSE, ""),
    "<|start_thinking|>": (TokenKind.OPEN, ""),  # Command A
    "<|end_thinking|>": (TokenKind.CLOSE, ""),
    "<answer>": (TokenKind.WRAPPER, ""),
    "</answer>": (TokenKind.WRAPPER, ""),
    **{f"<{name}>": (TokenKind.CALL, f"</{name}>") for name in _CALLS},
    **{f"</{name}>": (TokenKind.CALL_END, "") for name in _CALLS},
    "</function>": (TokenKind.CALL_END, ""),
    "<|tool_call|>": (TokenKind.CALL, ""),  # Phi-4
    "<|tool_call>": (TokenKind.CALL, "<tool_call|>"),  # Gemma 4
    "<tool_call|>": (TokenKind.CALL_END, ""),
    "<|python_tag|>": (TokenKind.CALL, ""),
    "[tool_calls]": (TokenKind.CALL, ""),
    "<|tool_calls_begin|>": (TokenKind.CALL, "<|tool_calls_end|>"),
    "<|tool_calls_end|>": (TokenKind.CALL_END, ""),
    "<|tool_calls_section_begin|>": (TokenKind.CALL, "<|tool_calls_section_end|>"),  # Kimi K2
    "<|tool_calls_section_end|>": (TokenKind.CALL_END, ""),
    "<|start_action|>": (TokenKind.CALL, "<|end_action|>"),
    "<|end_action|>": (TokenKind.CALL_END, ""),
    "<｜tool▁calls▁begin｜>": (TokenKind.CALL, "<｜tool▁calls▁end｜>"),  # DeepSeek
    "<｜tool▁calls▁end｜>": (TokenKind.CALL_END, ""),
    "<｜dsml｜function_calls>": (TokenKind.CALL, "</｜dsml｜function_calls>"),
    "</｜dsml｜function_calls>": (TokenKind.CALL_END, ""),
    "<|channel|>": (TokenKind.CHANNEL, "header"),
    "<|start|>": (TokenKind.CHANNEL, "header"),
    "<|constrain|>": (TokenKind.DROPPED, ""),
    "<|message|>": (TokenKind.MESSAGE, ""),
    "<|return|>": (TokenKind.TURN_END, ""),
    "<|call|>": (TokenKind.TURN_END, ""),
    "<|im_start|>": (TokenKind.TURN, "header"),
    "<|start_header_id|>": (TokenKind.TURN, "header"),
    "<|end_header_id|>": (TokenKind.HEADER_END, ""),
    "<start_of_turn>": (TokenKind.TURN, "header"),
    "<|turn>": (TokenKind.TURN, "header"),
    "<|assistant|>": (TokenKind.TURN, ""),
    "<|user|>": (TokenKind.TURN, ""),
    "<|system|>": (TokenKind.TURN, ""),
    "<｜assistant｜>": (TokenKind.TURN, ""),
    "<｜user｜>": (TokenKind.TURN, ""),
    "<|im_end|>": (TokenKind.TURN_END, ""),
    "<|end|>": (TokenKind.TURN_END, ""),
    "<|endoftext|>": (TokenKind.TURN_END, ""),
    "<|end_of_text|>": (TokenKind.TURN_END, ""),
    "<|eot_id|>": (TokenKind.TURN_END, ""),
    "<|eom_id|>": (TokenKind.TURN_END, ""),
    "<|eot|>": (TokenKind.TURN_END, ""),
    "<|eos|>": (TokenKind.TURN_END, ""),
    "<|end_of_turn|>": (TokenKind.TURN_END, ""),
    "<|end_of_turn_token|>": (TokenKind.TURN_END, ""),
    "<|end_of_sentence|>": (TokenKind.TURN_END, ""),
    "<｜end▁of▁sentence｜>": (TokenKind.TURN_END, ""),
    "<end_of_turn>": (TokenKind.TURN_END, ""),
    "<turn|>": (TokenKind.TURN_END, ""),
    "<eos>": (TokenKind.TURN_END, ""),
    "[|endofturn|]": (TokenKind.TURN_END, ""),
    "</s>": (TokenKind.TAIL, ""),
    "[/inst]": (TokenKind.TAIL, ""),
    "<s>": (TokenKind.START, ""),
    "<bos>": (TokenKind.START, ""),
    "<|begin_of_text|>": (TokenKind.START, ""),
    "<｜begin▁of▁sentence｜>": (TokenKind.START, ""),
    "<|start_response|>": (TokenKind.DROPPED, ""),
    "<|end_response|>": (TokenKind.DROPPED, ""),
    "<|begin_of_solution|>": (TokenKind.DROPPED, ""),
    "<|end_of_solution|>": (TokenKind.DROPPED, ""),
    "<|begin_of_box|>": (TokenKind.DROPPED, ""),  # GLM-4.5V
    "<|end_of_box|>": (TokenKind.DROPPED, ""),
}
CLOSES = re.compile(
    "|".join(re.escape(token) for token, (kind, _) in TOKENS.items() if kind is TokenKind.CLOSE),
    re.IGNORECASE,
)
LONGEST = 80  # characters, <function=NAME> included
_FUNCTION = re.compile(r"<function=[\w.:-]{1,64}>", re.IGNORECASE)
_FUNCTION_START = re.compile(r"<function=[\w.:-]{0,64}$", re.IGNORECASE)
_STARTS = frozenset(token[:n] for token in (*TOKENS, "<function=") for n in range(1, len(token)))


def may_begin(text: str) -> bool:
    """Whether `text` (lower case) is the beginning of a token."""
    return text in _STARTS or _FUNCTION_START.fullmatch(text) is not None


def function_tag(token: str) -> _Token:
    """Llama and Qwen Coder name the function in the tag."""
    if _FUNCTION.fullmatch(token):
        return TokenKind.CALL, "</function>"
    return TokenKind.DROPPED, ""


def token_at(text: str) -> str | None:
    """The token at the start of `text`, as it is written there."""
    ends = {"<": ">", "[": "]", "◁": "▷"}
    at = text.find(ends[text[0]], 1, LONGEST)
    token = text[: at + 1]
    known = at > 0 and (token.lower() in TOKENS or function_tag(token)[0] is TokenKind.CALL)
    return token if known else None
