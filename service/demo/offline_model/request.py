"""What a client asks for, the same for Chat Completions and for the Responses API."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.demo.offline_model.tool_choice import Tool

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[^,;]*)*),", re.ASCII | re.IGNORECASE)


class Refused(Exception):
    """The request is answered with an error, in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


@dataclass(frozen=True)
class Message:
    """One message: its text, its pictures described, and tool traffic."""

    role: str
    text: str
    pictures: tuple[str, ...] = ()
    calls: tuple[tuple[str, str, str], ...] = ()  # id, name, arguments as JSON
    call_id: str = ""


@dataclass(frozen=True)
class Request:
    """What the client asks for."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Any = "auto"
    format: Mapping[str, Any] = field(default_factory=dict)  # type, name, schema, strict
    stream: bool = False
    include_usage: bool = False

    @property
    def prompt_tokens(self) -> int:
        """A token for every four characters begun, and 85 for a picture."""
        return sum(-(-len(each.text) // 4) + 85 * len(each.pictures) for each in self.messages)


def picture(url: str, where: str) -> str:
    """What can be said of a picture without seeing it. Raises Refused for a broken data: URL."""
    head = _DATA_URL.match(url)
    if head is None:
        if url[:5].lower() == "data:":
            raise Refused(400, "Invalid image: no media type.", "invalid_image_url", where)
        return url[:80]
    try:
        data = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        message = "Invalid image: the data: URL is not valid base64."
        raise Refused(400, message, "invalid_image_url", where) from None
    said = f"{head[1] or 'image'}, {len(data)} bytes"
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        said += f", {int.from_bytes(data[16:20])}×{int.from_bytes(data[20:24])} pixels"
    return said


def shut_down(model: str) -> Refused | None:
    """What OpenAI says of a model that is no more."""
    if not model.startswith("gpt-3.5-turbo"):
        return None
    message = (
        f"The model `{model}` has been deprecated, learn more here: "
        "https://platform.openai.com/docs/deprecations"
    )
    return Refused(404, message, "model_not_found", "model")
