"""Topics that mean something to the broker itself."""

from __future__ import annotations

# Under it each installation has the topic of its reply rule (`service.emqx.reply_rule`).
REPLY_TOPIC = "emqx-gpt/reply"

# Filters of the topics that no flow may use.
RESERVED_TOPICS = (f"{REPLY_TOPIC}/#",)

# EMQX gives these first levels a meaning of their own; no device's message is seen under them.
_SPECIAL = {
    "$share": "leave $share/GROUP/ out: EMQX's rule already sees each message once",
    "$queue": "leave $queue/ out: EMQX's rule already sees each message once",
    "$exclusive": "leave $exclusive/ out: it is a word for subscribers",
    "$delayed": "write the topic without $delayed/SECONDS/: the rule sees it when it is due",
    "$events": "only published messages can be answered, not the broker's events",
    "$bridges": "only published messages can be answered; let a rule republish them first",
}


def not_a_source(topic_filter: str) -> str | None:
    """Why no rule sees messages of `topic_filter`, as what to do instead; None if it does."""
    return _SPECIAL.get(topic_filter.split("/")[0])


def landing(topic_filter: str) -> str:
    """Where a message ends up: EMQX publishes `$delayed/SECONDS/topic` to `topic`, later."""
    first, *rest = topic_filter.split("/")
    if first != "$delayed":
        return topic_filter
    return "#" if "#" in rest[:1] or len(rest) < 2 else landing("/".join(rest[1:]))
