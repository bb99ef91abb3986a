"""What a message of EMQX's publish API would be published with."""

import base64
from typing import Any


def payload_of(message: dict[str, Any]) -> str:
    """The payload as text."""
    payload: str = message["payload"]
    if message.get("payload_encoding") == "base64":
        return base64.b64decode(payload).decode("utf-8", "replace")
    return payload
