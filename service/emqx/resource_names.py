"""How our resources in EMQX are called, and how they are told from everyone else's.

A resource is ours when its name is one that we would give *and* its description begins with
our mark: a resource of somebody else that happens to have the same name stays untouched.
"""

from __future__ import annotations

import functools
import hashlib
import re

from service.errors import ConfigError

PREFIX = "emqx_gpt"
MARK = "emqx-gpt:"
CONNECTOR_SAYS = f"{MARK} the service's webhook"
ORDERED_CONNECTOR_SAYS = f"{MARK} the service's webhook, in order"
ACTION_SAYS = f"{MARK} messages of flows without order"
ORDERED_SAYS = f"{MARK} messages of flows with order"
RECENT_CONNECTOR_SAYS = f"{MARK} the service's webhook, for what is only kept"
RECENT_SAYS = f"{MARK} messages that are only kept"
AGAIN_SAYS = f"{MARK} once more what the other action gave up"
ANSWERS_SAYS = f"{MARK} answers to tool calls"
REPLY_SAYS = f"{MARK} replies with binary Correlation-Data"
_FLOW_SAYS = f"{MARK} flow "

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_HASHED = re.compile(r"_[0-9a-f]{8}\Z")
_ORDERED, _AGAIN, _RECENT = "_ordered", "_again", "_recent"
_RESERVED = frozenset({"reply", "tool_answers"})
_TOKEN = re.compile(r" \(token ([0-9a-f]{8})\)\Z")


def check_prefix(prefix: str) -> str:
    """`prefix` itself, or ConfigError: EMQX takes letters, digits and _ in a name."""
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"the prefix {prefix!r} can't be used: a letter, then up to 63 letters, digits and _"
        )
    if prefix.endswith((_ORDERED, _AGAIN, _RECENT)):
        raise ConfigError(f"the prefix {prefix!r} can't be used: choose another ending")
    return prefix


def rule_id(prefix: str, flow: str) -> str:
    """The id of a flow's rule. Two flows never share one.

    A name that EMQX would not take, or that could be taken for a made-up one, gets a digest.
    """
    if _PLAIN.fullmatch(flow) and flow not in _RESERVED and not _HASHED.search(flow):
        return f"{prefix}_{flow}"
    digest = hashlib.sha256(flow.encode(errors="surrogatepass")).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9]+", "_", flow)[:40].strip("_")
    return f"{prefix}_{readable}_{digest}" if readable else f"{prefix}_{digest}"


def reply_id(prefix: str) -> str:
    """The id of the reply rule; no flow's rule can have it."""
    return f"{prefix}_reply"


def answers_id(prefix: str) -> str:
    """The id of the rule for answers to tool calls; no flow's rule can have it."""
    return f"{prefix}_tool_answers"


def action_id(prefix: str, *, ordered: bool = False) -> str:
    """The action as rules and the REST API name it; the connector has the same id."""
    return f"http:{prefix}{_ORDERED if ordered else ''}"


def recent_id(prefix: str) -> str:
    """The action for what is only kept, and its connector."""
    return f"http:{prefix}{_RECENT}"


def window(flow: str) -> str:
    """What the rule of a flow's window is called among the flows; no flow has such a name."""
    return f"{flow}:recent"


def again_id(action: str) -> str:
    """The action that EMQX 5.9 and later hand what `action` gave up."""
    return f"{action}{_AGAIN}"


def bare(ident: str) -> str:
    """A connector's or action's name without its type."""
    return ident.removeprefix("http:")


def flow_says(flow: str) -> str:
    """The description of a flow's rule."""
    return _FLOW_SAYS + flow


def is_ours(prefix: str, ident: str, description: str) -> bool:
    """Whether the rule `ident` is one that we made under this prefix."""
    if ident == reply_id(prefix):
        return description.startswith(REPLY_SAYS)
    if ident == answers_id(prefix):
        return description.startswith(ANSWERS_SAYS)
    if not description.startswith(_FLOW_SAYS):
        return False
    return ident == rule_id(prefix, description.removeprefix(_FLOW_SAYS))


def with_fingerprint(description: str, fingerprint: str) -> str:
    """A connector's description that says which token it holds."""
    return f"{description} (token {fingerprint})"


def without_fingerprint(description: str) -> str:
    """The description before `with_fingerprint`."""
    return _TOKEN.sub("", description)


def fingerprint_in(description: str) -> str | None:
    """The fingerprint that `with_fingerprint` put there; None where nobody did."""
    found = _TOKEN.search(description)
    return found[1] if found else None


@functools.cache
def fingerprint(token: str, prefix: str = PREFIX) -> str:
    """Eight hex digits by which a rotated token is noticed.

    EMQX masks the token when it is read back. scrypt makes guessing a weak token slow for
    whoever may read EMQX's configuration, and 32 bits are too few to confirm a guess.
    """
    salt = f"emqx-gpt token of {prefix}".encode()
    return hashlib.scrypt(token.encode(), salt=salt, n=2**14, r=8, p=1, dklen=4).hex()
