"""The tokens that models write and users must not see, as data. Lower case."""

from __future__ import annotations

import re
from enum import Enum, auto


class Kind(Enum):
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


_Token = tuple[Kind, str]
_REASONING = ("think", "thinking", "thought", "thoughts", "reasoning", "reason", "seed:think")
_CALLS = (
    *("tool_call", "tool_calls", "function_call", "function_calls"),
    *("minimax:tool_call", "|dsml|function_calls", "|dsml|tool_calls"),
)

TOKENS: dict[str, _Token] = {
    **{f"<{name}>": (Kind.OPEN, "") for name in _REASONING},
    **{f"</{name}>": (Kind.CLOSE, "") for name in _REASONING},
    "[think]": (Kind.OPEN, ""),  # Magistral
    "[/think]": (Kind.CLOSE, ""),
    "◁think▷": (Kind.OPEN, ""),  # Kimi-VL
    "◁/think▷": (Kind.CLOSE, ""),
    "<|channel>": (Kind.OPEN, ""),  # Gemma 4
    "<channel|>": (Kind.CLOSE, ""),
    "<|begin_of_thought|>": (Kind.OPEN, ""),
    "<|end_of_thought|>": (Kind.CLOSE, ""),
    "<|start_thinking|>": (Kind.OPEN, ""),  # Command A
    "<|end_thinking|>": (Kind.CLOSE, ""),
    "<answer>": (Kind.WRAPPER, ""),
    "</answer>": (Kind.WRAPPER, ""),
    **{f"<{name}>": (Kind.CALL, f"</{name}>") for name in _CALLS},
    **{f"</{name}>": (Kind.CALL_END, "") for name in _CALLS},
    "</function>": (Kind.CALL_END, ""),
    "<|tool_call|>": (Kind.CALL, ""),  # Phi-4
    "<|tool_call>": (Kind.CALL, "<tool_call|>"),  # Gemma 4
    "<tool_call|>": (Kind.CALL_END, ""),
    "<|python_tag|>": (Kind.CALL, ""),
    "[tool_calls]": (Kind.CALL, ""),
    "<|tool_calls_begin|>": (Kind.CALL, "<|tool_calls_end|>"),
    "<|tool_calls_end|>": (Kind.CALL_END, ""),
    "<|tool_calls_section_begin|>": (Kind.CALL, "<|tool_calls_section_end|>"),  # Kimi K2
    "<|tool_calls_section_end|>": (Kind.CALL_END, ""),
    "<|start_action|>": (Kind.CALL, "<|end_action|>"),
    "<|end_action|>": (Kind.CALL_END, ""),
    "<｜tool▁calls▁begin｜>": (Kind.CALL, "<｜tool▁calls▁end｜>"),  # DeepSeek
    "<｜tool▁calls▁end｜>": (Kind.CALL_END, ""),
    "<｜dsml｜function_calls>": (Kind.CALL, "</｜dsml｜function_calls>"),
    "</｜dsml｜function_calls>": (Kind.CALL_END, ""),
    "<|channel|>": (Kind.CHANNEL, "header"),
    "<|start|>": (Kind.CHANNEL, "header"),
    "<|constrain|>": (Kind.DROPPED, ""),
    "<|message|>": (Kind.MESSAGE, ""),
    "<|return|>": (Kind.TURN_END, ""),
    "<|call|>": (Kind.TURN_END, ""),
    "<|im_start|>": (Kind.TURN, "header"),
    "<|start_header_id|>": (Kind.TURN, "header"),
    "<|end_header_id|>": (Kind.HEADER_END, ""),
    "<start_of_turn>": (Kind.TURN, "header"),
    "<|turn>": (Kind.TURN, "header"),
    "<|assistant|>": (Kind.TURN, ""),
    "<|user|>": (Kind.TURN, ""),
    "<|system|>": (Kind.TURN, ""),
    "<｜assistant｜>": (Kind.TURN, ""),
    "<｜user｜>": (Kind.TURN, ""),
    "<|im_end|>": (Kind.TURN_END, ""),
    "<|end|>": (Kind.TURN_END, ""),
    "<|endoftext|>": (Kind.TURN_END, ""),
    "<|end_of_text|>": (Kind.TURN_END, ""),
    "<|eot_id|>": (Kind.TURN_END, ""),
    "<|eom_id|>": (Kind.TURN_END, ""),
    "<|eot|>": (Kind.TURN_END, ""),
    "<|eos|>": (Kind.TURN_END, ""),
    "<|end_of_turn|>": (Kind.TURN_END, ""),
    "<|end_of_turn_token|>": (Kind.TURN_END, ""),
    "<|end_of_sentence|>": (Kind.TURN_END, ""),
    "<｜end▁of▁sentence｜>": (Kind.TURN_END, ""),
    "<end_of_turn>": (Kind.TURN_END, ""),
    "<turn|>": (Kind.TURN_END, ""),
    "<eos>": (Kind.TURN_END, ""),
    "[|endofturn|]": (Kind.TURN_END, ""),
    "</s>": (Kind.TAIL, ""),
    "[/inst]": (Kind.TAIL, ""),
    "<s>": (Kind.START, ""),
    "<bos>": (Kind.START, ""),
    "<|begin_of_text|>": (Kind.START, ""),
    "<｜begin▁of▁sentence｜>": (Kind.START, ""),
    "<|start_response|>": (Kind.DROPPED, ""),
    "<|end_response|>": (Kind.DROPPED, ""),
    "<|begin_of_solution|>": (Kind.DROPPED, ""),
    "<|end_of_solution|>": (Kind.DROPPED, ""),
    "<|begin_of_box|>": (Kind.DROPPED, ""),  # GLM-4.5V
    "<|end_of_box|>": (Kind.DROPPED, ""),
}
CLOSES = re.compile(
    "|".join(re.escape(token) for token, (kind, _) in TOKENS.items() if kind is Kind.CLOSE),
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
        return Kind.CALL, "</function>"
    return Kind.DROPPED, ""


def token_at(text: str) -> str | None:
    """The token at the start of `text`, as it is written there."""
    ends = {"<": ">", "[": "]", "◁": "▷"}
    at = text.find(ends[text[0]], 1, LONGEST)
    token = text[: at + 1]
    known = at > 0 and (token.lower() in TOKENS or function_tag(token)[0] is Kind.CALL)
    return token if known else None
