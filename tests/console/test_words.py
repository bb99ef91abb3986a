"""Each text of the pages in both languages."""

from __future__ import annotations

import re

from service.web.console.render import HERE, spoken
from service.web.console.words import CHINESE

CALL = re.compile(r"""\b_\(\s*(?:"([^"]+)"|'([^']+)')""")


def used() -> set[str]:
    texts = [path.read_text() for path in (HERE / "templates").glob("*.html")]
    return {a or b for text in texts for a, b in CALL.findall(text)}


def test_each_text_is_translated_and_each_translation_used() -> None:
    templates = used()
    assert len(templates) > 100
    states = {word for word in CHINESE if word.startswith("state:")}
    assert templates - set(CHINESE) - {"state:"} == set()
    assert set(CHINESE) - templates - states == set()


def test_a_translation_takes_the_values_that_its_text_takes() -> None:
    names = re.compile(r"\{(\w+)\}")
    for text, chinese in CHINESE.items():
        assert sorted(names.findall(text)) == sorted(names.findall(chinese)), text
    assert spoken("zh", "run {n}", n=2) == "第 2 次"
    assert spoken("en", "run {n}", n=2) == "run 2"


def test_no_text_stands_in_a_template_that_nobody_translates() -> None:
    """Words between tags: what is left once tags, templates and scripts are taken out."""
    for path in (HERE / "templates").glob("*.html"):
        if path.name in ("report.html", "sides.html"):  # a file of the command line, in English
            continue
        text = re.sub(
            r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|<script.*?</script>", "", path.read_text(), flags=re.S
        )
        text = re.sub(r"<[^>]*>|^/console\S*", " ", text, flags=re.S | re.M)
        words = set(re.findall(r"[A-Za-z]{3,}", text))
        assert words - {"emqx", "gpt", "EMQX", "QoS", "retain"} == set(), path.name
