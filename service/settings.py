"""Settings from the environment and `.env`; every secret also as a file (`NAME_FILE`)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service import safe_text
from service.errors import ConfigError, Fault
from service.units import seconds, size

SECRETS = (
    "OPENAI_API_KEY",
    "EMQX_API_KEY",
    "EMQX_API_SECRET",
    "EMQX_ADMIN_KEY",
    "EMQX_ADMIN_SECRET",
    "DATABASE_URL",
    "WEBHOOK_TOKEN",
    "OPERATOR_TOKEN",
    "VIEWER_TOKEN",
    "MCP_TOKEN",
)
OWN = "own-"
"""Begins a token that was made here, not by who set the service up: EMQX may not know it yet."""
TOKENS = ("WEBHOOK_TOKEN", "OPERATOR_TOKEN", "VIEWER_TOKEN", "MCP_TOKEN")
SHORT_TOKEN = 16
"""Characters; fewer can be guessed."""
HOW_TO_SET = "set it to a long random text, e.g. from: openssl rand -hex 24"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _url(value: str) -> str:
    if not re.match(r"https?://[^/\s]+", value):
        shown = value.rpartition("@")[2]  # before it may stand a password
        raise ValueError(f"{shown!r} is not a URL; it begins with http:// or https://")
    return value.rstrip("/")


def _rest_url(value: str) -> str:
    if value.endswith("/api/v5"):
        raise ValueError(f"leave /api/v5 out: {value.removesuffix('/api/v5')}")
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise ValueError("leave the user name out: it goes into EMQX_API_KEY, EMQX_API_SECRET")
    return value


def _text(parse: Callable[[str], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


Url = Annotated[str, AfterValidator(_url)]
RestUrl = Annotated[Url, AfterValidator(_rest_url)]
Seconds = Annotated[float, _text(seconds)]
Bytes = Annotated[int, _text(size)]


class Settings(BaseSettings):
    """What the service reads from its environment (docs/settings.md)."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    openai_api_key: SecretStr | None = Field(None, description="Key of the model's API")
    openai_base_url: Url = Field(
        "https://api.openai.com/v1", description="Any OpenAI-compatible server"
    )
    openai_model: str | None = Field(None, description="Model, over the default of flows.toml")
    emqx_url: RestUrl = Field("http://127.0.0.1:18083", description="EMQX's REST API")
    emqx_api_key: SecretStr | None = Field(None, description="API key for publishing")
    emqx_api_secret: SecretStr | None = Field(None, description="Its secret")
    emqx_admin_key: SecretStr | None = Field(
        None, description="API key for apply and retained messages; default EMQX_API_KEY"
    )
    emqx_admin_secret: SecretStr | None = Field(None, description="Its secret")
    emqx_prefix: str = Field(
        "emqx_gpt", description="How our resources in EMQX are called; each installation its own"
    )
    database_url: SecretStr = Field(
        SecretStr("sqlite:///emqx-gpt.db"), description="sqlite:///FILE or postgresql://…"
    )
    webhook_token: SecretStr | None = Field(
        None, description="What EMQX sends; two values separated by a comma are both valid"
    )
    operator_token: SecretStr | None = Field(
        None, description="For operators and /ask; two separated by a comma are both valid"
    )
    viewer_token: SecretStr | None = Field(
        None, description="For who may look and not act; two separated by a comma are both valid"
    )
    mcp_token: SecretStr | None = Field(
        None, description="For MCP clients over HTTP; two separated by a comma are both valid"
    )
    store_prompts: bool = Field(
        False, description="Keep the prompt of each request as it was sent, for people to see"
    )
    flows: Path = Field(Path("flows.toml"), description="The flows file")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on")
    public_url: Url | None = Field(
        None, description="What EMQX calls; default http://127.0.0.1:PORT"
    )
    allowed_hosts: str | None = Field(
        None, description="Names by which browsers may reach this service, separated by commas"
    )
    max_concurrency: int = Field(256, ge=1, description="Model calls in flight")
    max_backlog: int = Field(100_000, ge=1, description="Waiting requests before 503")
    max_body: Bytes = Field(8_000_000, ge=1000, description="Webhook body, bytes or 8 MB")
    max_answer: Bytes = Field(
        1_000_000, ge=1000, description="One answer of a model with its reasoning, bytes or 1 MB"
    )
    max_connections: int = Field(4000, ge=20, description="Connections to this process at once")
    max_memory: Bytes = Field(
        1_000_000_000, ge=0, description="What all conversations remember, bytes or 1 GB"
    )
    max_readings: Bytes = Field(
        1_000_000_000, ge=0, description="What all windows (recent) keep, bytes or 1 GB"
    )
    daily_tokens: int = Field(
        50_000_000, ge=0, description="Tokens of all flows in a day (UTC); 0: no limit"
    )
    daily_usd: float = Field(
        100.0, ge=0, le=1e9, description="US dollars of all flows in a day (UTC); 0: no limit"
    )
    client_identity: Literal["clientid", "username", "address"] = Field(
        "clientid", description="Whom client_limit counts: clientid, username or address"
    )
    max_attempts: int = Field(8, ge=1, description="Durable attempts for one request")
    retention: Seconds = Field(7 * 86400.0, description="Ended requests are kept this long")
    grace: Seconds = Field(30.0, description="SIGTERM: time for requests in flight")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _text(str.lower)] = Field(
        "info", description="debug, info, warning or error"
    )
    log_format: Annotated[Literal["text", "json"], _text(str.lower)] = Field(
        "text", description="text or json lines"
    )
    otel_exporter_otlp_endpoint: Url | None = Field(
        None, description="OpenTelemetry collector (OTLP over HTTP) that traces go to"
    )

    @property
    def webhook_tokens(self) -> tuple[str, ...]:
        return _tokens(self.webhook_token)

    @property
    def operator_tokens(self) -> tuple[str, ...]:
        return _tokens(self.operator_token)

    @property
    def viewer_tokens(self) -> tuple[str, ...]:
        return _tokens(self.viewer_token)

    @property
    def mcp_tokens(self) -> tuple[str, ...]:
        return _tokens(self.mcp_token)

    @property
    def own_webhook_token(self) -> bool:
        """Whether it was made here, so that EMQX may not know it yet."""
        return any(token.startswith(OWN) for token in self.webhook_tokens)

    @property
    def emqx_key(self) -> tuple[str, str]:
        """API key and secret for publishing; empty strings where unset."""
        return _plain(self.emqx_api_key), _plain(self.emqx_api_secret)

    @property
    def emqx_admin(self) -> tuple[str, str]:
        """API key and secret for configuring; default: the publishing ones."""
        if self.emqx_admin_key is None:
            return self.emqx_key
        return _plain(self.emqx_admin_key), _plain(self.emqx_admin_secret)

    @property
    def webhook_url(self) -> str:
        """Base URL at which EMQX reaches this service."""
        return self.public_url or f"http://127.0.0.1:{self.port}"

    @property
    def names(self) -> frozenset[str] | None:
        """Names (or name:port) by which the service is reached; None: any."""
        listed = [part.strip().lower() for part in (self.allowed_hosts or "").split(",")]
        if self.host not in LOOPBACK and not any(listed):
            return None
        public = (self.public_url or "").partition("://")[2].partition("/")[0]
        return frozenset(name for name in (*listed, public.lower()) if name)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, safe_text.masked(value) if isinstance(value, str) else value

    def secrets(self) -> Iterator[str]:
        """What is never shown, whoever says it. Names of keys may be any word and are not."""
        for name in SECRETS:
            if name not in ("DATABASE_URL", "EMQX_API_KEY", "EMQX_ADMIN_KEY"):
                value = _plain(getattr(self, name.lower()))
                yield from (value, *(part.strip() for part in value.split(",")))
        yield password_of(self.database_url.get_secret_value())

    def serving_faults(self) -> list[Fault]:
        """What keeps `serve` from starting with these settings."""
        faults = []
        if self.openai_api_key is None and "api.openai.com" in self.openai_base_url:
            hint = "set it, or OPENAI_BASE_URL for a server that needs none"
            faults.append(Fault("OPENAI_API_KEY", "is not set", hint=hint))
        for name in ("emqx_api_key", "emqx_api_secret"):
            if getattr(self, name) is None:
                hint = "EMQX dashboard: System, API Keys"
                faults.append(Fault(name.upper(), "is not set", hint=hint))
        if self.host not in LOOPBACK:
            for name in ("webhook_token", "operator_token"):
                if not _tokens(getattr(self, name)):
                    why = f"is not set, and HOST={self.host} is open to the network"
                    faults.append(Fault(name.upper(), why, hint=HOW_TO_SET))
        return faults

    def weak_tokens(self) -> list[Fault]:
        """Warnings of tokens that can be guessed."""
        return [
            Fault(name, f"has fewer than {SHORT_TOKEN} characters", hint=HOW_TO_SET, warning=True)
            for name in TOKENS
            if any(len(token) < SHORT_TOKEN for token in _tokens(getattr(self, name.lower())))
        ]


def password_of(url: str) -> str:
    """The password in an address, as it stands there; "" without one."""
    before, at, _ = url.partition("://")[2].rpartition("@")
    return before.partition(":")[2] if at else ""


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _tokens(secret: SecretStr | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in _plain(secret).split(",") if part.strip())


def use_file(path: Path) -> None:
    """Put the settings of a file into this process's environment. Raises ConfigError."""
    try:
        found = dotenv_values(path, encoding="utf-8")
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fault = Fault(str(path), reason.lower(), hint="demo.env is there while the demo runs")
        raise ConfigError(str(fault), (fault,)) from None
    os.environ.update({name: value for name, value in found.items() if value is not None})


def environment() -> dict[str, str]:
    """The environment, and beneath it what `.env` says: keys of providers stand there as well."""
    try:
        in_file = dotenv_values(".env", encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        in_file = {}  # Settings tells that it can't be read
    found = {name: value for name, value in in_file.items() if value}
    return found | {name: value for name, value in os.environ.items() if value}


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings. Raises ConfigError that names each bad variable and the fix."""
    environ = environment() if environ is None else environ
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name in SECRETS:
        path = environ.get(f"{name}_FILE")
        if not path:
            continue
        try:
            values[name.lower()] = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            faults.append(Fault(f"{name}_FILE", f"can't read {path}: {reason}"))
    values.update(overrides)
    if faults:
        raise ConfigError("settings can't be used", tuple(faults))
    try:
        loaded = Settings(**values)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            name = ".".join(str(part) for part in item["loc"]).upper()
            message = item["msg"].removeprefix("Value error, ")
            faults.append(Fault(name, message))
        raise ConfigError("settings can't be used", tuple(faults)) from None
    safe_text.hide(loaded.secrets())
    faults = [fault for name in TOKENS if (fault := _token_fault(loaded, name, environ))]
    if faults:
        raise ConfigError("settings can't be used", tuple(faults))
    return loaded


def _token_fault(loaded: Settings, name: str, environ: Mapping[str, str]) -> Fault | None:
    """A token that is set and holds none would leave the door open, or closed for all."""
    if _tokens(getattr(loaded, name.lower())):
        return None
    path = environ.get(f"{name}_FILE")
    if path:
        return Fault(f"{name}_FILE", f"{path} holds no token", hint=HOW_TO_SET)
    if getattr(loaded, name.lower()) is not None:
        return Fault(name, "holds no token, only commas or spaces", hint=HOW_TO_SET)
    return None
