"""The reply rule: EMQX publishes for us what its publish API can't carry. Pure.

The API takes Correlation-Data and topics as printable text only. Anything else goes to an
internal topic as an envelope, and a rule publishes what is in it. Devices can publish there
too, by a last will past every check of the sender: so the rule obeys only what is signed, and
each envelope for a minute only. The key is made from WEBHOOK_TOKEN, which both sides have. It
stands on both sides of what is hashed, so nobody can extend a hash.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.domain import Publish
from service.rulesql.reserved import REPLY_TOPIC

LIFETIME = 60  # seconds that an envelope is obeyed
KEY_HOLE = "${REPLY_KEY}"  # no SQL as it stands: EMQX refuses a rule in which it is not filled in

# What Erlang does not call printable: EMQX refuses it in every text of the publish API.
_UNPRINTABLE = re.compile("[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffe\uffff]")

ACTION: Mapping[str, Any] = {
    "function": "republish",
    "args": {
        "topic": "${p.topic}",
        "payload": "${p.payload}",
        "qos": "${p.qos}",
        "retain": "${p.retain}",
        "mqtt_properties": {
            "Correlation-Data": "${corr}",
            "Content-Type": "${p.content_type}",
            "Message-Expiry-Interval": "${p.expiry}",
        },
        "user_properties": "${p.user}",
    },
}


def topic(prefix: str) -> str:
    """The internal topic of one installation."""
    return f"{REPLY_TOPIC}/{prefix}"


@functools.cache
def key(token: str, prefix: str) -> str:
    """The signing key, 64 hex digits; it stands in the rule, and does not give away the token.

    scrypt makes guessing a weak token slow for whoever may read EMQX's rules.
    """
    salt = f"reply rule of {prefix}".encode()
    return hashlib.scrypt(token.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32).hex()


def sql(prefix: str, keys: Sequence[str]) -> str:
    """The rule's SQL. Each of `keys` is obeyed, so that a token can be changed in steps."""
    quoted = [f"'{each}'" for each in keys] or [KEY_HOLE]
    signed = " or ".join(
        f"contains(sha256(concat(concat({each}, payload.b), {each})), payload.m)" for each in quoted
    )
    return "\n".join(
        (
            "SELECT json_decode(base64_decode(payload.b)) AS p,",
            "  base64_decode(p.correlation) AS corr",
            f'FROM "{topic(prefix)}"',
            f"WHERE ({signed}) and p.until > now_timestamp()",
        )
    )


def fault(rule: Mapping[str, Any] | None, keys: Sequence[str]) -> str | None:
    """Why replies through the rule would not arrive; None where it obeys one of `keys`."""
    apply = "emqx-gpt emqx apply mends it"
    if rule is None:
        return f"EMQX has no reply rule: replies to binary Correlation-Data are lost; {apply}"
    if not any(f"'{each}'" in str(rule.get("sql", "")) for each in keys):
        return f"the reply rule in EMQX does not obey our signature; {apply}"
    return None


def without_keys(rule_sql: str) -> str:
    """The SQL as it is rendered before its keys are filled in, for showing and comparing."""
    return re.sub(r"'[0-9a-f]{64}'", lambda _: KEY_HOLE, rule_sql)


def needed(message: Publish) -> bool:
    """Whether a message can't go through the publish API as it is."""
    if _UNPRINTABLE.search(message.topic):
        return True
    try:
        return _UNPRINTABLE.search((message.correlation or b"").decode()) is not None
    except UnicodeDecodeError:
        return True


def envelope(message: Publish, keys: Sequence[str], now: float) -> bytes:
    """What is published to the internal topic; `now` in seconds by EMQX's clock.

    It is signed with each of `keys`: the rule may still have the older one.
    """
    inner = {
        "topic": message.topic,
        "payload": message.payload.decode("utf-8", "replace"),
        "qos": message.qos,
        "retain": message.retain,
        "correlation": base64.b64encode(message.correlation or b"").decode(),
        "content_type": message.content_type or "text/plain",
        "expiry": message.expiry,
        "user": dict(message.user_properties),
        "until": int(now) + LIFETIME,
    }
    b = base64.b64encode(orjson.dumps(inner)).decode()
    return orjson.dumps({"b": b, "m": [sign(b, each) for each in keys]})


def sign(b: str, signing_key: str) -> str:
    """What the rule compares with."""
    return hashlib.sha256(f"{signing_key}{b}{signing_key}".encode()).hexdigest()
