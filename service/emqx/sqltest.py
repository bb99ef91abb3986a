"""A rule's SQL, tried out by EMQX itself before it becomes a rule."""

from __future__ import annotations

import re

from service.domain import Publish
from service.emqx import reply_rule, resource_names
from service.emqx.management_api import EmqxAdmin
from service.emqx.resources import Desired
from service.errors import BrokerError

_LATER = 2**33  # seconds: whatever EMQX's clock says
# EMQX answers 400 too when the SQL is fine and only raises on the sample, as a comparison does
# on a field that the sample has not. These words tell a text that is no SQL, and a function
# that it does not have.
_REFUSED = re.compile(
    r"syntax error|lex_error|illegal|parse_error|not_supported|\bundef\b|not_allowed|not_loaded|"
    r"bad_sql_function_reference"
)


async def test_sql(admin: EmqxAdmin, desired: Desired, ident: str) -> None:
    """Raises BrokerError, sql_refused, with EMQX's reason.

    The sample's payload is an empty object; a WHERE that does not match it is fine.
    """
    is_reply = ident == resource_names.reply_id(desired.prefix)
    context = {
        "event_type": "message_publish",
        "topic": reply_rule.topic(desired.prefix) if is_reply else desired.topics[ident],
        "payload": _envelope(desired) if is_reply else "{}",
        "clientid": "emqx-gpt-test",
        "username": "emqx-gpt-test",
        "peerhost": "127.0.0.1",
        "qos": 1,
    }
    try:
        output = await admin.test_sql(str(desired.rules[ident]["sql"]), context)
        if is_reply and output is None:
            why = "it does not accept what the service signs"
            raise BrokerError(f"EMQX tried rule {ident}: {why}", code="sql_refused")
    except BrokerError as error:
        if error.code != "broker_refused":
            raise
        if is_reply or _REFUSED.search(error.message):
            raise sql_refused(ident, error) from None


def _envelope(desired: Desired) -> str:
    """One that the reply rule has to obey; signed for a moment at which it does no harm."""
    assert desired.target is not None
    keys = [reply_rule.key(token, desired.prefix) for token in desired.target.tokens]
    nothing = Publish(topic="emqx-gpt/test", payload=b"", correlation=b"\0")
    return reply_rule.envelope(nothing, keys, _LATER).decode()


def sql_refused(ident: str, error: BrokerError) -> BrokerError:
    """The error of a rule that EMQX does not take."""
    why = error.message.partition(": ")[2]
    return BrokerError(
        f"EMQX refuses the SQL of rule {ident}: {why}", code="sql_refused", status=error.status
    )
