"""What the user sees of what a model wrote: tables, and any split into deltas."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.llm.contents import content_of, documents_of, json_of, thinks
from service.llm.markup import Separator, separate
from service.llm.markup_tokens import TOKENS

HARMONY = (
    "<|channel|>analysis<|message|>The user greets.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Hello Ann.<|return|>"
)
SEEN = [  # what the model wrote, what is seen, what is reasoning
    ("Hello Ann.", "Hello Ann.", ""),
    ("\n\n  Hello Ann.  \n\n", "Hello Ann.", ""),
    ("<think>\nA greeting.\n</think>\n\nHello Ann.", "Hello Ann.", "A greeting."),
    ("<thinking>A greeting.</thinking>Hello Ann.", "Hello Ann.", "A greeting."),
    ("<reasoning>A greeting.</reasoning> Hello Ann.", "Hello Ann.", "A greeting."),
    ("<THINK>A greeting.</Think>Hello Ann.", "Hello Ann.", "A greeting."),
    ("<think>A greeting.</thinking>Hello Ann.", "Hello Ann.", "A greeting."),
    ("<think></think>Hello Ann.", "Hello Ann.", ""),
    ("<think>\n\n</think>\n\nHello Ann.", "Hello Ann.", ""),
    ("A greeting.\n</think>\n\nHello Ann.", "Hello Ann.", "A greeting."),
    ("A greeting.</think>Hello Ann.", "Hello Ann.", "A greeting."),
    ("A greeting. </think> Hello Ann.", "Hello Ann.", "A greeting."),
    ("<think>The user greets me and I", "", "The user greets me and I"),
    ("Well. <think>The user greets", "Well.", "The user greets"),
    ("Hello <think>secret</think> Ann.", "Hello Ann.", "secret"),
    ("Hello <think> secret plan </think> ann.", "Hello ann.", "secret plan"),
    ("Hello\n<think>\nsecret\n</think>\nAnn.", "Hello\nAnn.", "secret"),
    ("<think>a</think>Hello.<think>b</think> Bye.", "Hello. Bye.", "a\nb"),
    ("<think>a<think>b</think>c</think>Hello.", "Hello.", "a<think>b\nc"),
    ("好的<think>用户在问候</think>你好", "好的你好", "用户在问候"),
    ("[THINK]A greeting.[/THINK]Hello Ann.", "Hello Ann.", "A greeting."),
    ("◁think▷A greeting.◁/think▷Hello Ann.", "Hello Ann.", "A greeting."),
    ("<|channel>thought\nA greeting.<channel|>Hello Ann.", "Hello Ann.", "thought\nA greeting."),
    ("<seed:think>A greeting.</seed:think>Hello Ann.", "Hello Ann.", "A greeting."),
    ("<think>x</think><answer>Hello Ann.</answer>", "Hello Ann.", "x"),
    (HARMONY, "Hello Ann.", "The user greets."),
    (HARMONY.removesuffix("<|return|>"), "Hello Ann.", "The user greets."),
    (HARMONY.removeprefix("<|channel|>"), "Hello Ann.", "The user greets."),
    ("<|start|>assistant" + HARMONY, "Hello Ann.", "The user greets."),
    ("<|channel|>final<|message|>Hello Ann.", "Hello Ann.", ""),
    ("<|channel|>analysis<|message|>The user greets", "", "The user greets"),
    ("analysisThe user greets.assistantfinalHello Ann.", "Hello Ann.", "The user greets."),
    ("Hello Ann.<|im_end|>", "Hello Ann.", ""),
    ("Hello Ann.<|im_end|>\n<|im_start|>user\nAnd then?", "Hello Ann.", ""),
    ("<|im_start|>assistant\nHello Ann.<|im_end|>", "Hello Ann.", ""),
    ("Hello Ann.<|endoftext|>Human: more", "Hello Ann.", ""),
    ("<|start_header_id|>assistant<|end_header_id|>\n\nHello Ann.<|eot_id|>", "Hello Ann.", ""),
    ("Hello Ann.<｜end▁of▁sentence｜>", "Hello Ann.", ""),
    ("Hello Ann.<end_of_turn>\n", "Hello Ann.", ""),
    ("Hello Ann.</s>", "Hello Ann.", ""),
    ("<s> Hello Ann. </s>\n", "Hello Ann.", ""),
    ("<think>x</think>Hello Ann.<|im_end|>", "Hello Ann.", "x"),
    ("<|begin_of_box|>42<|end_of_box|>", "42", ""),
]
KEPT = [  # plain text that only looks like markup: nothing is lost
    "1 < 2 and 3 > 2, a<b, x <- y, <3",
    "Use `<think>` to open and `</think>` to close.",
    "The tag `</think>` closes it.",
    "```html\n<think>\nHmm.\n</think>\n```\nThat is how it looks.",
    "~~~\n<think>\n~~~",
    "The <think> tag marks reasoning.",
    "The <think> tag marks reasoning.\nAnd a second line.",
    "It stands between <think> and </think> tags.",
    "It stands between <think> and </think>, then comes the answer.",
    'Look for "<think>" in it.',
    "用<think>和</think>标签。",
    "使用 <think> 标签标记推理。\n下一行。",
    "ChatML writes <|im_end|> to end a turn.",
    "`<|im_end|>` ends a turn.",
    "<b>bold</b> and <s>old</s> new",
    "old</s> new",
    "An array [1, 2], a [link](x), a [think tank].",
    "<thinker> is no such tag; <|x|> neither",
    "<answer>42</answer>",
    "analysis of the soil",
    "analysis",
    "final",
    "finally, it rains",
    "a line without an end <thi",
    "a stray ` and 1 < 2",
    "Temperature <18 °C\n\n- one\n- two",
]


@pytest.mark.parametrize(("wrote", "seen", "reasoning"), SEEN)
def test_only_the_answer_is_seen(wrote: str, seen: str, reasoning: str) -> None:
    found = separate(wrote)
    assert (found.text, found.reasoning) == (seen, reasoning)
    assert found.calls == ()


@pytest.mark.parametrize("text", KEPT)
def test_text_that_looks_like_markup_stays(text: str) -> None:
    assert separate(text).text == text
    assert separate(text, inside=True).text == text


CALLS = [
    ('<tool_call>\n{"name": "x"}\n</tool_call>', "", ('<tool_call>\n{"name": "x"}\n</tool_call>',)),
    ('Yes.<tool_call>{"a":1}</tool_call>', "Yes.", ('<tool_call>{"a":1}</tool_call>',)),
    (
        "<tool_call>1</tool_call>\n<tool_call>2</tool_call>",
        "",
        ("<tool_call>1</tool_call>", "<tool_call>2</tool_call>"),
    ),
    (
        "<function=set_light>{}</function>",
        "",
        ("<function=set_light>{}</function>",),
    ),
    (
        "<tool_call>\n<function=f>\n<parameter=room>a</parameter></function>\n</tool_call>",
        "",
        ("<tool_call>\n<function=f>\n<parameter=room>a</parameter></function>\n</tool_call>",),
    ),
    ('<think>So.</think><tool_call>{"a":1}', "", ('<tool_call>{"a":1}',)),
    ('[TOOL_CALLS][{"name": "f"}]', "", ('[TOOL_CALLS][{"name": "f"}]',)),
    (
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
        "",
        ("<|channel|>commentary to=functions.f json<|message|>{}",),
    ),
    (
        "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
        "",
        ("<|channel|>assistant to=functions.f commentary json<|message|>{}",),
    ),
]


@pytest.mark.parametrize(("wrote", "seen", "calls"), CALLS)
def test_tool_calls_are_set_apart(wrote: str, seen: str, calls: tuple[str, ...]) -> None:
    found = separate(wrote)
    assert (found.text, found.calls) == (seen, calls)


def test_what_was_cut_while_it_may_have_been_reasoning_is_not_shown() -> None:
    assert separate("The user greets me and I", inside=True, cut=True).text == ""
    assert separate("The user greets me and I", inside=True).text == "The user greets me and I"
    assert separate("Sure <think> the user", cut=True).text == "Sure"


def test_a_stream_hands_out_at_once_what_is_plain() -> None:
    separator = Separator()
    assert separator.feed("Hello ") == "Hello"
    assert separator.feed("Ann, 1 <") == " Ann, 1"
    assert separator.feed(" 2") == " < 2"
    assert separator.feed(" so.") == " so."
    assert separator.end() == ""


def test_a_stream_that_may_begin_inside_waits_until_it_knows() -> None:
    separator = Separator(inside=True)
    assert separator.feed("The user greets me.") == ""
    assert separator.feed("\n</think>\n\nHello") == "Hello"
    assert separator.feed(" Ann.") == " Ann."
    assert not separator.restarted


def test_the_server_tells_that_nothing_begins_inside() -> None:
    separator = Separator(inside=True)
    separator.sure()
    assert separator.feed("Hello Ann.") == "Hello Ann."


def test_a_lone_end_tag_takes_back_what_was_handed_out() -> None:
    separator = Separator()
    assert separator.feed("The user greets me.") == "The user greets me."
    assert separator.feed("</think>Hello") == "Hello"
    assert separator.restarted
    assert separator.feed(" Ann.") == " Ann."
    assert not separator.restarted
    assert separator.separated.reasoning == "The user greets me."


WORDS = ["Hello ", "Ann", ".", "\n", " ", "`", "```\n", "<", ">", "[", "1 < 2", "and", "用", "A"]
TEXTS = st.lists(st.sampled_from([*WORDS, *TOKENS, "<function=f>", "analysis", "assistantfinal"]))
ANY = TEXTS.map("".join) | st.sampled_from([row[0] for row in SEEN] + KEPT)


@given(ANY, st.booleans(), st.booleans(), st.data())
def test_any_split_gives_the_same(text: str, inside: bool, cut: bool, data: st.DataObject) -> None:
    whole = separate(text, inside=inside, cut=cut)
    separator, shown, at = Separator(inside=inside), "", 0
    while at < len(text):
        size = data.draw(st.integers(1, 7))
        delta = separator.feed(text[at : at + size])
        shown = delta if separator.restarted else shown + delta
        at += size
    rest = separator.end(cut=cut)
    shown = rest if separator.restarted else shown + rest
    assert separator.separated == whole
    assert shown == whole.text
    assert whole.text == whole.text.strip()


PLAIN = st.text(st.characters(exclude_characters="<[◁`~", exclude_categories=["Cs"]), max_size=40)
OPENS = {"<think>": "</think>", "<thinking>": "</thinking>", "[THINK]": "[/THINK]"}


@given(PLAIN.filter(lambda text: "analysis" not in text), st.sampled_from(list(OPENS)), st.data())
def test_no_part_of_reasoning_is_ever_handed_out(
    answer: str, opens: str, data: st.DataObject
) -> None:
    text = f"{opens}SECRET SECRET{OPENS[opens]}{answer}"
    separator, shown = Separator(), ""
    cuts = data.draw(st.sets(st.integers(0, len(text))))
    places = sorted({0, len(text), *cuts})
    for start, end in zip(places, places[1:], strict=False):
        shown += separator.feed(text[start:end])
    shown += separator.end()
    assert not separator.restarted
    assert shown == answer.strip()


@given(PLAIN)
def test_plain_text_is_not_touched(text: str) -> None:
    assert separate(text).text == text.strip() or text.strip().startswith("analysis")


@pytest.mark.parametrize(
    "piece",
    ["<", "<think", "</s>", "</think>", "<think>", "[", "the <think> tag ", "`<think>", "a"],
)
def test_a_hostile_answer_takes_its_length_in_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.process_time()
    separate(text)
    assert time.process_time() - began < 5


PARTS = [
    (None, "", ""),
    ("Hello", "Hello", ""),
    ([{"type": "text", "text": "Hello "}, {"type": "text", "text": "Ann."}], "Hello Ann.", ""),
    (
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "greeting"}]},
            {"type": "text", "text": "Hello Ann."},
        ],
        "Hello Ann.",
        "greeting",
    ),
    ([{"type": "output_text", "text": "Hello"}, {"type": "image_url"}, " Ann"], "Hello Ann", ""),
    ([{"type": "text", "text": {"value": "Hello"}}, {"text": " Ann"}], "Hello Ann", ""),
    ([{"type": "reasoning", "text": "hm"}], "", "hm"),
    ([], "", ""),
]


@pytest.mark.parametrize(("content", "text", "reasoning"), PARTS)
def test_content_is_text_or_parts(content: object, text: str, reasoning: str) -> None:
    found = content_of(content)
    assert (found.text, found.reasoning) == (text, reasoning)


@pytest.mark.parametrize("content", [7, {"text": "x"}, [7], True])
def test_what_is_no_content_is_said(content: object) -> None:
    with pytest.raises(TypeError):
        content_of(content)


DOCUMENT = '{"value": 18, "unit": "C"}'
JSON = [
    (DOCUMENT, DOCUMENT),
    (f"```json\n{DOCUMENT}\n```", DOCUMENT),
    (f"```JSON\n{DOCUMENT}\n```", DOCUMENT),
    (f"```\n{DOCUMENT}\n```", DOCUMENT),
    (f"```json {DOCUMENT}```", DOCUMENT),
    (f"Here is the JSON:\n```json\n{DOCUMENT}\n```\nLet me know!", DOCUMENT),
    (f"Here it is: {DOCUMENT} Let me know!", DOCUMENT),
    (f"<think>\n{{maybe}} {{}}\n</think>\n\n{DOCUMENT}", DOCUMENT),
    (f"Use {{braces}}: {DOCUMENT}", DOCUMENT),
    ("[1, 2]", "[1, 2]"),
    ("42", "42"),
    ("no JSON here", None),
    ('{"value": 18, "unit": "C', None),
    ('[{"value": 18}, {"value"', None),
    ('[{"value": 18}, {"value": "a', None),
    ('{"value": NaN}', None),
    ("", None),
]


@pytest.mark.parametrize(("text", "document"), JSON)
def test_json_is_found_in_fences_and_sentences(text: str, document: str | None) -> None:
    assert json_of(text) == document


def test_all_documents_are_offered_in_turn() -> None:
    assert list(documents_of('See [1]: {"a": 1}, or {"a": 2}.')) == ["[1]", '{"a": 1}', '{"a": 2}']


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 100_000, '{"a":' * 50_000, "```" * 50_000])
def test_hostile_json_takes_its_length_in_time(text: str) -> None:
    began = time.process_time()
    json_of(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "model",
    [
        "deepseek-r1:7b",
        "DeepSeek-R1-Distill-Qwen",
        "qwq-32b",
        "qwen3-thinking",
        "deepseek-reasoner",
    ],
)
def test_models_that_begin_inside_their_reasoning(model: str) -> None:
    assert thinks(model)


@pytest.mark.parametrize("model", ["gpt-5.4-mini", "llama3.2", "qwen3:8b", "gemma3", "mistral"])
def test_models_that_do_not(model: str) -> None:
    assert not thinks(model)
