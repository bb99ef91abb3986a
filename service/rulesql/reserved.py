"""Topics that mean something to the broker itself."""

from __future__ import annotations

# The internal topic on which binary Correlation-Data reaches the broker's reply rule.
REPLY_TOPIC = "emqx-gpt/reply"

# Filters of the topics that no flow may use.
RESERVED_TOPICS = (REPLY_TOPIC,)


def landing(topic_filter: str) -> str:
    """Where a message ends up: EMQX publishes `$delayed/SECONDS/topic` to `topic`, later."""
    first, *rest = topic_filter.split("/")
    if first != "$delayed":
        return topic_filter
    return "#" if "#" in rest[:1] or len(rest) < 2 else landing("/".join(rest[1:]))
