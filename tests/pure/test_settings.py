"""Settings from the environment, from files, and what is wrong with them."""

from pathlib import Path

import pytest

from service import flows, settings, units
from service.bootstrap import edition_of
from service.errors import ConfigError

NAMES = [name.upper() for name in settings.Settings.model_fields]


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor the .env of whoever runs the tests counts."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


def load(monkeypatch: pytest.MonkeyPatch, **values: str) -> settings.Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return settings.load()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("24h", 86400), ("7d", 604800), ("1h30m", 5400), ("250ms", 0.25)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5", "5 s", "-5s", "5y", "5s!", "1h 30m"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        units.seconds(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("8 MB", 8_000_000), ("8mb", 8_000_000), ("8M", 8_000_000), ("5000", 5000), ("1 kB", 1000)],
)
def test_sizes(text: str, size: int) -> None:
    assert units.size(text) == size


@pytest.mark.parametrize("text", ["", "big", "8 TB", "-8 MB", "8.5 MB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        units.size(text)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(monkeypatch)
    assert found.emqx_url == "http://127.0.0.1:18083"
    assert found.database_url.get_secret_value() == "sqlite:///emqx-gpt.db"
    assert (found.host, found.port) == ("127.0.0.1", 8000)
    assert (found.max_concurrency, found.max_backlog, found.max_body) == (256, 100_000, 8_000_000)
    assert (found.max_attempts, found.retention, found.grace) == (8, 7 * 86400, 30)
    assert found.webhook_url == "http://127.0.0.1:8000"
    assert (found.webhook_tokens, found.operator_tokens) == ((), ())


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(
        monkeypatch,
        EMQX_URL="https://emqx.example:8443/",
        MAX_BODY="2 MB",
        GRACE="5s",
        LOG_LEVEL="DEBUG",
        WEBHOOK_TOKEN=" old , new ,",
        EMQX_API_KEY="k",
        EMQX_API_SECRET="s",
        PUBLIC_URL="http://gpt:8000/",
    )
    assert found.emqx_url == "https://emqx.example:8443"
    assert (found.max_body, found.grace, found.log_level) == (2_000_000, 5, "debug")
    assert found.webhook_tokens == ("old", "new")
    assert found.emqx_key == found.emqx_admin == ("k", "s")
    assert found.webhook_url == "http://gpt:8000"


def test_an_admin_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(monkeypatch, EMQX_API_KEY="k", EMQX_ADMIN_KEY="ak", EMQX_ADMIN_SECRET="as")
    assert found.emqx_admin == ("ak", "as")


def test_an_empty_value_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(monkeypatch, OPENAI_API_KEY="", PORT="", RETENTION="")
    assert found.openai_api_key is None
    assert found.port == 8000


@pytest.mark.parametrize("name", settings.SECRETS)
def test_every_secret_can_come_from_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    found = load(monkeypatch, **{f"{name}_FILE": str(tmp_path / "secret")})
    assert getattr(found, name.lower()).get_secret_value() == "from-file"


def test_a_dotenv_file_can_name_a_secrets_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    (tmp_path / ".env").write_text(f"WEBHOOK_TOKEN_FILE={tmp_path / 'secret'}\n")
    assert load(monkeypatch).webhook_tokens == ("from-file",)


def test_keys_of_other_providers_stand_in_a_dotenv_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("DEEPSEEK_API_KEY=sk-file\nOTHER_API_KEY=sk-other\n")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-environment")
    found, faults = flows.parse(
        '[flows.a]\nrequest = "a"\nmodel = "deepseek/x"\nfallback = "other/y"\n'
        '[providers.deepseek]\nbase_url = "http://a/v1"\napi_key_env = "DEEPSEEK_API_KEY"\n'
        '[providers.other]\nbase_url = "http://b/v1"\napi_key_env = "OTHER_API_KEY"\n'
    )
    assert found is not None, faults
    keys = edition_of(settings.load(), found, settings.environment()).keys
    assert (keys["deepseek"], keys["other"]) == ("sk-environment", "sk-other")


def test_the_key_of_who_sums_up_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, faults = flows.parse(
        '[flows.a]\nrequest = "a"\nhistory = { summarize = "cheap/x" }\n'
        '[providers.cheap]\nbase_url = "http://a/v1"\napi_key_env = "CHEAP_API_KEY"\n'
    )
    assert found is not None, faults
    with pytest.raises(ConfigError) as raised:
        edition_of(load(monkeypatch), found, {})
    assert [fault.where for fault in raised.value.faults] == ["CHEAP_API_KEY"]


def test_a_dotenv_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=9000\nOPENAI_MODEL=other\nUNKNOWN=1\n")
    found = load(monkeypatch, OPENAI_MODEL="goes-before")
    assert (found.port, found.openai_model) == (9000, "goes-before")


def test_all_faults_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"PORT": "http", "GRACE": "soon", "LOG_FORMAT": "xml", "MAX_ATTEMPTS": "0"}
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, **values)
    assert {fault.where for fault in caught.value.faults} == set(values)


def test_a_file_that_can_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, WEBHOOK_TOKEN_FILE="nowhere")
    (fault,) = caught.value.faults
    assert (fault.where, "nowhere" in fault.message) == ("WEBHOOK_TOKEN_FILE", True)


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, {"OPENAI_API_KEY", "EMQX_API_KEY", "EMQX_API_SECRET"}),
        ({"OPENAI_BASE_URL": "http://localhost:11434/v1"}, {"EMQX_API_KEY", "EMQX_API_SECRET"}),
        (
            {"OPENAI_API_KEY": "x", "EMQX_API_KEY": "x", "EMQX_API_SECRET": "x", "HOST": "::"},
            {"WEBHOOK_TOKEN", "OPERATOR_TOKEN"},
        ),
        (
            {
                "OPENAI_API_KEY": "x", "EMQX_API_KEY": "x", "EMQX_API_SECRET": "x",
                "HOST": "0.0.0.0", "WEBHOOK_TOKEN": "x",
            },
            {"OPERATOR_TOKEN"},
        ),
        ({"OPENAI_API_KEY": "x", "EMQX_API_KEY": "x", "EMQX_API_SECRET": "x"}, set()),
    ],
)  # fmt: skip
def test_what_serve_needs(
    values: dict[str, str], missing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load(monkeypatch, **values)
    assert {fault.where for fault in found.serving_faults()} == missing
    assert all(fault.hint for fault in found.serving_faults())


@pytest.mark.parametrize("name", settings.TOKENS)
@pytest.mark.parametrize("text", ["", "\n", " , ", ",,,"])
def test_a_token_file_without_a_token_is_refused(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, **{f"{name}_FILE": str(tmp_path / "token")})
    (fault,) = caught.value.faults
    assert fault.where == f"{name}_FILE"
    assert str(tmp_path / "token") in fault.message
    assert "openssl" in fault.hint


def test_a_token_of_commas_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, OPERATOR_TOKEN=" , ,")
    (fault,) = caught.value.faults
    assert fault.where == "OPERATOR_TOKEN"
    assert "commas" in fault.message


def test_short_tokens_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(monkeypatch, WEBHOOK_TOKEN=f"{'x' * 16}, short", OPERATOR_TOKEN="y" * 16)
    assert [(fault.where, fault.warning) for fault in found.weak_tokens()] == [
        ("WEBHOOK_TOKEN", True)
    ]


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "EMQX_URL", "PUBLIC_URL", "DATABASE_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "http://ada:hush-hush@host/v1", "ftp://ada:hush-hush@host", "ada:hush-hush@host",
        "http://ada:hush-hush@host/api/v5", "postgresql://ada:hush-hush@host/db?x=1",
    ],
)  # fmt: skip
def test_a_password_in_an_address_is_not_shown(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        shown = repr(load(monkeypatch, **{name: url}))
    except ConfigError as error:
        shown = " ".join([str(error), *map(str, error.faults)])
    assert "hush" not in shown


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(monkeypatch, **dict.fromkeys(settings.SECRETS, "hush"))
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://emqx.example:8443/api/v5", "leave /api/v5 out: https://emqx.example:8443"),
        ("https://emqx.example:8443/api/v5/", "leave /api/v5 out"),
        ("http://key:secret@emqx:18083", "EMQX_API_KEY"),
    ],
)
def test_an_address_of_emqx_with_more_than_belongs_there(url: str, said: str) -> None:
    """`emqx-url-api-v5`: told, and not asked for /api/v5/api/v5."""
    with pytest.raises(ConfigError) as caught:
        settings.load({}, emqx_url=url)
    (fault,) = caught.value.faults
    assert fault.where == "EMQX_URL"
    assert said in fault.message
    assert "secret" not in fault.message
    assert settings.load({}, emqx_url="https://front.example/emqx").emqx_url.endswith("/emqx")
