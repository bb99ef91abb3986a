"""Names of models, and those whose days are over or counted at OpenAI."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_PROVIDER = "openai"
DEFAULT_MODEL = "gpt-5.4-mini"

_SNAPSHOT = r"(-\d{4}-\d{2}-\d{2})?"
_ENDS = (
    (re.compile(r"gpt-3\.5-turbo(-.*)?"), "2026-10-23"),
    (re.compile(rf"gpt-5-mini{_SNAPSHOT}"), "2026-12-11"),
    (re.compile(rf"gpt-4o(-mini)?{_SNAPSHOT}"), "2027-01-14"),
)
INSTEAD = f'take one that stays, such as "{DEFAULT_MODEL}"'


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model and the provider that runs it; written `NAME/model`, or `model` alone."""

    provider: str
    model: str

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        provider, slash, model = text.partition("/")
        return cls(provider, model) if slash else cls(DEFAULT_PROVIDER, text)

    def __str__(self) -> str:
        if self.provider == DEFAULT_PROVIDER and "/" not in self.model:
            return self.model
        return f"{self.provider}/{self.model}"


def end_of_life(ref: ModelRef, base_url: str | None) -> str | None:
    """The day on which OpenAI shuts the model down, or did; None if none is known.

    Another server (`base_url`) may go on serving whatever it likes to call so.
    """
    if ref.provider != DEFAULT_PROVIDER or base_url:
        return None
    return next((day for name, day in _ENDS if name.fullmatch(ref.model)), None)
