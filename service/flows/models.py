"""Model names whose days are over or counted, at OpenAI."""

from __future__ import annotations

import re

from service.flows.flow import DEFAULT_MODEL, DEFAULT_PROVIDER, ModelRef, Provider

_SNAPSHOT = r"(-\d{4}-\d{2}-\d{2})?"
_ENDS = (
    (re.compile(r"gpt-3\.5-turbo(-.*)?"), "2026-10-23"),
    (re.compile(rf"gpt-5-mini{_SNAPSHOT}"), "2026-12-11"),
    (re.compile(rf"gpt-4o(-mini)?{_SNAPSHOT}"), "2027-01-14"),
)
INSTEAD = f'take one that stays, such as "{DEFAULT_MODEL}"'


def end_of_life(ref: ModelRef, provider: Provider | None) -> str | None:
    """The day on which OpenAI shuts the model down, or did; None if none is known."""
    if ref.provider != DEFAULT_PROVIDER or (provider is not None and provider.base_url):
        return None  # another server may go on serving whatever it likes to call so
    return next((day for name, day in _ENDS if name.fullmatch(ref.model)), None)
