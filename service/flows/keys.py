"""The keys of flows.toml as pydantic models: types, ranges, and what an editor shows.

Descriptions here end up in the JSON Schema. What needs more than one key to judge is in
`check`; how a pydantic error becomes a sentence is in `wording`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from service.units import DURATION, LIMIT, Limit, as_tuple, duration, limit, no_bool, whole_seconds

FLOW_NAME = "[A-Za-z][A-Za-z0-9_-]{0,63}"
Text = Annotated[str, Field(min_length=1)]
_TEXT = {"type": "string", "minLength": 1}
Texts = Annotated[
    tuple[Text, ...],
    BeforeValidator(as_tuple),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}),
]
_DURATION = WithJsonSchema(
    {"type": "string", "pattern": f"^{DURATION}$", "examples": ["90s", "5m", "24h", "7d"]}
)
Seconds = Annotated[float, BeforeValidator(duration), _DURATION]
WholeSeconds = Annotated[int, BeforeValidator(whole_seconds), _DURATION]
_LIMIT = WithJsonSchema(
    {"type": "string", "pattern": f"^{LIMIT}$", "examples": ["10/min", "100/h", "1000/day"]}
)
LimitText = Annotated[Limit, BeforeValidator(limit), _LIMIT]
Positive = Annotated[int, Field(gt=0, le=10**12)]  # databases count in 64 bits
Qos = Annotated[Literal[0, 1, 2], BeforeValidator(no_bool)]


class Keys(BaseModel):
    """A table of flows.toml: exact types, no unknown key."""

    model_config = ConfigDict(extra="forbid", strict=True)


class HistoryKeys(Keys):
    """Memory of a conversation."""

    messages: int = Field(
        10, ge=2, le=1000, description="How many messages are remembered; an exchange is two."
    )
    tokens: Positive | None = Field(
        None, description="Remember no more than about this many tokens; the oldest go first."
    )
    ttl: Seconds | None = Field(None, description='Forget after this much silence: "24h".')
    reset: Texts | None = Field(
        None, description="Messages that say nothing but this forget the conversation."
    )


class ToolKeys(Keys):
    """Something the model may do (publish to `topic`) or look up (`read` a retained message)."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="The function's name, for the model: letters, digits, _ and -.",
    )
    description: Text = Field(description="What it does and when to use it, for the model.")
    topic: Text | None = Field(
        None, description="Where a call is published; ${name} is an argument or a captured level."
    )
    payload: Text | None = Field(
        None, description="What is published. Without it: the arguments as JSON."
    )
    read: Text | None = Field(
        None, description="The topic whose retained message is told to the model."
    )
    parameters: dict[str, Any] | None = Field(
        None, description="The arguments, as JSON Schema of an object."
    )
    at_most_once: bool = Field(
        False, description="Rather lose a call in a crash than publish it twice."
    )
    qos: Qos = Field(1, description="QoS of what is published.")
    retain: bool = Field(False, description="Publish as a retained message.")


class FlowKeys(Keys):
    """One flow: which topics, which prompt and model, where the reply goes."""

    request: Texts | None = Field(
        None, description="Topics to answer; ${name} captures one level. One or several."
    )
    where: Text | None = Field(
        None, description="Condition in EMQX's rule SQL; it is tested in the broker."
    )
    reply: Text | None = Field(None, description="Where the reply is published.")
    error: Text | None = Field(
        None, description="Where failures are told. Without it: on the reply topic."
    )
    stream: Text | None = Field(
        None, description="Where pieces of the reply are published while the model writes."
    )
    status: Text | None = Field(
        None, description="Where progress is told: working, then completed or failed."
    )
    conversation: Text | None = Field(
        None, description="What shares memory, order and cooldown. Without it: the captured levels."
    )
    input: Literal["text", "json", "image"] | None = Field(None, description="What the payload is.")
    prompt: Text | None = Field(
        None, description="What the model is asked. Without it: the payload as it came."
    )
    strip: Text | None = Field(
        None, description="Regular expression; what it finds is cut from the message."
    )
    require: Text | None = Field(
        None, description="Regular expression; a message without it is ignored."
    )
    dedupe: Text | None = Field(
        None, description="Two messages with the same value are one request. Default: ${id}."
    )
    system: Text | None = Field(None, description="Instructions to the model.")
    model: Text | None = Field(None, description="Name of the model, or PROVIDER/name.")
    fallback: Texts | None = Field(
        None, description="Models to ask, in this order, when the first one can't answer."
    )
    temperature: float | None = Field(
        None, ge=0, le=2, description="Sent only if set: reasoning models refuse it."
    )
    max_tokens: Positive | None = Field(None, description="Longest answer, in tokens.")
    timeout: Seconds | None = Field(None, description='Longest wait for one model call: "60s".')
    params: dict[str, Any] | None = Field(
        None, description="Anything else of the Chat Completions API, sent as it stands."
    )
    history: HistoryKeys | None = Field(None, description="Memory; off unless set.")
    format: Literal["text", "json"] | None = Field(
        None, description="The reply as bare text, or in a JSON envelope."
    )
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="JSON Schema; the model then answers with such JSON."
    )
    qos: Qos | None = Field(None, description="QoS of what is published.")
    retain: bool | None = Field(None, description="Publish the reply as a retained message.")
    expiry: WholeSeconds | None = Field(
        None, description="MQTT 5: the broker drops an undelivered reply after this long."
    )
    deadline: Seconds | None = Field(
        None, description="After this long a request is not asked any more."
    )
    cooldown: Seconds | None = Field(
        None, description="After a reply, ignore the conversation for this long."
    )
    limit: LimitText | None = Field(None, description='Requests per conversation: "10/min".')
    client_limit: LimitText | None = Field(None, description='Requests per client id: "100/h".')
    daily_tokens: Positive | None = Field(
        None, description="Tokens this flow may use in a day (UTC)."
    )
    on_error: Text | None = Field(
        None, description="Published as the reply when no model can answer."
    )
    tools: list[ToolKeys] | None = Field(None, description="What the model may do.")
    allow_response_topics: Texts | None = Field(
        None, description="Filters that an MQTT 5 Response-Topic must match to count."
    )


class ProviderKeys(Keys):
    """An OpenAI-compatible server beside the default one."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+")] | None = Field(
        None, description="Address of its API, up to and including /v1."
    )
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = Field(
        None, description="Name of the environment variable with its key; none: no key."
    )
    max_tokens_param: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        None, description="What this server calls max_tokens."
    )


class PriceKeys(Keys):
    """US dollars per million tokens."""

    input: float = Field(ge=0, description="Tokens sent.")
    output: float = Field(ge=0, description="Tokens received.")


class FileKeys(Keys):
    """flows.toml of emqx-gpt: which messages a model answers, and how."""

    defaults: FlowKeys | None = Field(
        None, description="Keys that hold for every flow which does not set them itself."
    )
    providers: dict[str, ProviderKeys] | None = Field(
        None, description="OpenAI-compatible servers by name."
    )
    prices: dict[str, PriceKeys] | None = Field(
        None, description="Prices by model, for the cost figures."
    )
    flows: dict[str, FlowKeys] = Field(description="The flows by name.")
