"""A rule's SQL, tried out by EMQX itself before it becomes a rule."""

from __future__ import annotations

import re

from service.emqx import names
from service.emqx.management_api import EmqxAdmin
from service.emqx.resources import Desired
from service.errors import BrokerError

# EMQX answers 400 too when the SQL is fine and only raises on the sample, as a comparison does
# on a field that the sample has not. These words tell a text that is no SQL, and a function
# that it does not have.
_REFUSED = re.compile(
    r"syntax error|illegal|parse_error|not_supported|\bundef\b|not_allowed|not_loaded|"
    r"bad_sql_function_reference"
)


async def test_sql(admin: EmqxAdmin, desired: Desired, ident: str) -> None:
    """Raises BrokerError, sql_refused, with EMQX's reason.

    The sample's payload is an empty object; a WHERE that does not match it is fine.
    """
    context = {
        "event_type": "message_publish",
        "topic": desired.topics[ident],
        "payload": "{}",
        "clientid": "emqx-gpt-test",
        "username": "emqx-gpt-test",
        "qos": 1,
    }
    if ident == names.reply_id(desired.prefix):
        context["payload"] = '{"topic":"t","payload":"","correlation":"AA==","user":{}}'
    try:
        await admin.test_sql(str(desired.rules[ident]["sql"]), context)
    except BrokerError as error:
        if error.code != "broker_refused":
            raise
        if _REFUSED.search(error.message):
            raise sql_refused(ident, error) from None


def sql_refused(ident: str, error: BrokerError) -> BrokerError:
    """The error of a rule that EMQX does not take."""
    why = error.message.partition(": ")[2]
    return BrokerError(
        f"EMQX refuses the SQL of rule {ident}: {why}", code="sql_refused", status=error.status
    )
