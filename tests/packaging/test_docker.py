"""Dockerfile, docker-compose.yml and .env.example, as far as they can be checked without Docker."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compose_spec import PyOptions, parse_duration

from service import settings
from service.settings import Settings
from service.units import seconds

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")

OURS = {name.upper() for name in Settings.model_fields}
# Not settings of the service, but of what runs beside it.
OF_COMPOSE = {
    *("COMPOSE_PROFILES", "BIND"),
    *("MQTT_PORT", "WS_PORT", "DASHBOARD_PORT", "REPLICA_PORTS"),
}
OF_EMQX = {"EMQX_NODE_COOKIE", "EMQX_DASHBOARD_PASSWORD"}
OF_POSTGRES = {"POSTGRES_PASSWORD"}
IN_CONTAINERS = {
    "emqx": {
        "EMQX_NODE_NAME",
        "EMQX_NODE__COOKIE",
        "EMQX_DASHBOARD__DEFAULT_PASSWORD",
        "EMQX_API_KEY__BOOTSTRAP_FILE",
    },
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"},
}
BESIDE = {"EMQX_ADMIN_KEY", "EMQX_ADMIN_SECRET", "MCP_TOKEN"}  # of what Compose does not run
SECRETS = {*settings.SECRETS, *OF_EMQX, *OF_POSTGRES} - {"DATABASE_URL", "EMQX_API_KEY"}
OPTIONAL = {"VIEWER_TOKEN"}  # without it nobody may only look

_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")
_LINE = re.compile(r"^(#?)([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


def interpolated(env: dict[str, str], text: str = COMPOSE) -> str:
    """As Compose does it with the three forms that stand in our file; KeyError for `:?`."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if env.get(name):
            return env[name]
        if kind == "?":
            raise KeyError(f"{name}: {rest}")
        return rest or ""

    return _VARIABLE.sub(value, "\n".join(_uncommented(text)))


def _uncommented(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


FILLED = {name: f"a-{name.lower().replace('_', '-')}" for name in SECRETS} | {
    "EMQX_API_KEY": "emqx-gpt"
}


def compose() -> dict:
    return yaml.safe_load(interpolated(FILLED))


def validate(text: str) -> None:
    """Raises ValueError for what the Compose specification does not allow."""
    # The library takes addresses only; host-gateway is Docker's word for this machine's.
    PyOptions(apply_merge=True).from_yaml(text.replace("host-gateway", "10.0.0.1")).validate()
    parsed = yaml.safe_load(text)
    services = parsed["services"]
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            if other not in services:
                raise ValueError(f"{name} depends on the unknown service {other}")
        for volume in service.get("volumes", []):  # all of ours in the short form
            source = volume.split(":")[0]
            if source[0] not in "./~" and source not in parsed.get("volumes", {}):
                raise ValueError(f"{name} uses the unknown volume {source}")


def test_the_compose_file_is_valid():
    validate(interpolated(FILLED))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("restart: unless-stopped", "restart: sometimes"),
        ("    image: postgres:17", "    imagee: postgres:17"),
        ("stop_grace_period: 45s", "stop_grace_period: 45 moments"),
        ("condition: service_healthy", "condition: service_healthyy"),
        ("source: api-keys", "source: api-key"),
        ("      replicas: 3", "      replicas: three"),
        ("- inbox:/data", "- inbx:/data"),
        ("127.0.0.1:8000:8000", "127.0.0.1:80000:8000"),
        ("      postgres:\n        condition", "      postgre:\n        condition"),
    ],
)
def test_a_wrong_compose_file_is_refused(old, new):
    text = interpolated(FILLED)
    assert old in text
    validate(text)
    with pytest.raises(ValueError, match="."):
        validate(text.replace(old, new))


def test_every_environment_name_is_known():
    for name, service in compose()["services"].items():
        known = IN_CONTAINERS.get(name, OURS)
        assert set(service.get("environment", {})) <= known, name
    beside = OF_COMPOSE | OF_EMQX | OF_POSTGRES
    assert {found[1] for found in _VARIABLE.finditer(COMPOSE)} <= OURS | beside
    assert {found[2] for found in _LINE.finditer(EXAMPLE)} <= OURS | beside


def test_the_example_names_what_the_compose_file_uses_and_every_setting():
    """Those that Compose does not take from .env stand behind the others, as comments."""
    with_compose, without = EXAMPLE.split("── Without Docker ──")
    used = {found[1] for found in _VARIABLE.finditer(COMPOSE)} | {"COMPOSE_PROFILES"}
    assert {found[2] for found in _LINE.finditer(with_compose)} == used
    assert {found[2] for found in _LINE.finditer(without)} == OURS - used
    assert all(found[1] for found in _LINE.finditer(without))


def test_what_the_example_shows_as_default_is_the_default():
    """A commented line of .env.example says what holds without it."""
    for hidden, name, value in _LINE.findall(EXAMPLE):
        default = Settings.model_fields[name.lower()].default if name in OURS else None
        if not hidden or default is None:  # OPENAI_MODEL: its default is in flows.toml
            continue
        shown = getattr(settings.load({}, **{name.lower(): value}), name.lower())
        assert shown == default, name


def test_no_secret_has_a_default():
    values = {name: value for hidden, name, value in _LINE.findall(EXAMPLE) if not hidden}
    for name in SECRETS & set(values):
        assert values[name] == "", f"{name} has a value in .env.example"
    assert set(values) >= SECRETS - BESIDE
    for name, kind, rest in _VARIABLE.findall(COMPOSE):
        if name in SECRETS - OF_POSTGRES - OPTIONAL:
            assert kind == "?", f"{name} may be left out"
            assert rest.strip(), f"{name}: say what to do"
        elif name in OF_POSTGRES:
            assert not rest, "PostgreSQL refuses an empty password, and only its profile needs it"


REQUIRED = set(FILLED) - OF_POSTGRES - OPTIONAL - BESIDE


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_compose_refuses_to_start_without(name):
    with pytest.raises(KeyError, match=name):
        interpolated(FILLED | {name: ""})


def readme_fill_command() -> str:
    """The one line of the README that makes .env; both languages and .env.example agree."""
    lines = {
        line.strip().lstrip("# ")
        for name in ("README.md", "README.zh-CN.md", ".env.example")
        for line in (ROOT / name).read_text("utf-8").splitlines()
        if ".env.example > .env" in line
    }
    assert len(lines) == 1
    return lines.pop()


def test_the_readme_command_fills_in_every_secret_but_the_model_key(tmp_path):
    (tmp_path / ".env.example").write_text(EXAMPLE, "utf-8")
    subprocess.run(["sh", "-c", readme_fill_command()], cwd=tmp_path, check=True)
    made = (tmp_path / ".env").read_text("utf-8")
    values = {name: value for hidden, name, value in _LINE.findall(made) if not hidden}
    assert values.pop("OPENAI_API_KEY") == ""
    random = {name: values[name] for name in SECRETS & set(values)}
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in random.values()), random
    assert len(set(random.values())) == len(random)
    validate(interpolated(values | {"OPENAI_API_KEY": "sk-test"}))


def test_profiles_and_replicas():
    services = compose()["services"]
    assert services["emqx-gpt"]["profiles"] == ["sqlite"]
    assert services["emqx-gpt-replica"]["profiles"] == ["postgres"]
    assert services["postgres"]["profiles"] == ["postgres"]
    assert "profiles" not in services["emqx"]
    assert "COMPOSE_PROFILES=sqlite\n" in EXAMPLE
    assert services["emqx-gpt-replica"]["deploy"]["replicas"] == 3
    port = services["emqx-gpt-replica"]["ports"][0]
    first, last = port["published"].split("-")
    assert (port["target"], int(last) - int(first) + 1) == (8000, 3)


def test_the_ports_on_this_machine_can_be_others():
    chosen = {"MQTT_PORT": "2883", "WS_PORT": "9083", "DASHBOARD_PORT": "28083", "PORT": "9000"}
    chosen["REPLICA_PORTS"] = "9100-9102"
    made = interpolated(FILLED | chosen)
    validate(made)
    services = yaml.safe_load(made)["services"]
    assert services["emqx"]["ports"] == [
        "127.0.0.1:2883:1883", "127.0.0.1:9083:8083", "127.0.0.1:28083:18083",
    ]  # fmt: skip
    assert services["emqx-gpt"]["ports"] == ["127.0.0.1:9000:8000"]
    assert services["emqx-gpt-replica"]["ports"][0]["published"] == "9100-9102"
    # Inside nothing moves: the image's own PORT holds there.
    assert "PORT" not in services["emqx-gpt"]["environment"]


def test_emqx_reaches_the_service_through_the_stable_front():
    services = compose()["services"]
    for name in ("emqx-gpt", "emqx-gpt-replica"):
        assert services[name]["environment"]["PUBLIC_URL"] == "http://front:8000"
        assert services[name]["command"] == ["serve", "--apply"]
    assert "profiles" not in services["front"]
    assert "./haproxy:/usr/local/etc/haproxy:ro" in services["front"]["volumes"]
    # The front finds one process or all replicas under this name.
    config = (ROOT / "haproxy" / "haproxy.cfg").read_text("utf-8")
    assert "presetenv LISTEN :8000\n" in config
    assert "presetenv BACKEND emqx-gpt:8000\n" in config
    aliases = services["emqx-gpt-replica"]["networks"]["default"]["aliases"]
    assert aliases == ["emqx-gpt"]


def test_data_survives_a_new_container():
    parsed = compose()
    services = parsed["services"]
    assert "emqx:/opt/emqx/data" in services["emqx"]["volumes"]
    assert "inbox:/data" in services["emqx-gpt"]["volumes"]
    assert "postgres:/var/lib/postgresql/data" in services["postgres"]["volumes"]
    assert set(parsed["volumes"]) == {"emqx", "inbox", "postgres"}
    # EMQX keeps its data under its node's name.
    name = services["emqx"]["environment"]["EMQX_NODE_NAME"]
    assert name == f"emqx@{services['emqx']['hostname']}"
    assert services["emqx-gpt"]["environment"]["DATABASE_URL"].startswith("sqlite:////data/")


def test_the_api_key_reaches_emqx():
    parsed = compose()
    content = parsed["configs"]["api-keys"]["content"]
    assert content == f"{FILLED['EMQX_API_KEY']}:{FILLED['EMQX_API_SECRET']}\n"
    emqx = parsed["services"]["emqx"]
    target = emqx["configs"][0]["target"]
    assert emqx["environment"]["EMQX_API_KEY__BOOTSTRAP_FILE"] == target


def test_every_service_stops_in_time_restarts_and_bounds_its_log():
    for name, service in compose()["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        grace = service.get("environment", {}).get("GRACE")
        if grace:
            assert parse_duration(service["stop_grace_period"]) > seconds(grace) + 10
    assert compose()["services"]["emqx"]["healthcheck"]["test"][-2:] == ["ctl", "status"]


def test_containers_may_do_little_and_take_a_bounded_part():
    for name in ("emqx-gpt", "emqx-gpt-replica", "front"):
        service = compose()["services"][name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"cap_add", "privileged", "user", "devices"} & set(service), name
        assert service["mem_limit"] == service["memswap_limit"], name
        assert 0 < service["pids_limit"] <= 256, name
        if name != "front":
            assert service["ulimits"]["nofile"] >= Settings.model_fields["max_connections"].default
    assert "HEALTHCHECK" in DOCKERFILE
    # What is stuck is ended and begun anew from within.
    assert 'CMD ["serve"]' in DOCKERFILE


def test_containers_give_settings_that_serve_accepts():
    for name in ("emqx-gpt", "emqx-gpt-replica"):
        given = compose()["services"][name]["environment"]
        environ = {**_env_of_image(), **given}
        values = {key.lower(): value for key, value in environ.items() if value and key in OURS}
        loaded = settings.load({}, **values)
        assert loaded.serving_faults() == []
        assert loaded.host == "0.0.0.0"


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def instructions(name: str) -> list[list[str]]:
    joined = DOCKERFILE.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.startswith(f"{name} ")]
    return [shlex.split(line)[1:] for line in lines]


def _env_of_image() -> dict[str, str]:
    return dict(pair.split("=", 1) for words in instructions("ENV") for pair in words)


def copied() -> list[str]:
    """What the Dockerfile copies from the checkout."""
    own = [words for words in instructions("COPY") if not words[0].startswith("--from")]
    return [source for words in own for source in words[:-1]]


def test_what_the_dockerfile_copies_exists_and_reaches_the_builder():
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    ]
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert source.removeprefix("./") in allowed, f"{source} is kept out by .dockerignore"
    assert sorted(allowed) == sorted(source.removeprefix("./") for source in copied())


def test_the_image_is_pinned_and_runs_as_nobody_special():
    bases = [words[0] for words in instructions("FROM")]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", base) for base in bases)
    assert instructions("USER")[-1] != ["root"]
    assert int(instructions("USER")[-1][0].split(":")[0]) > 0
    assert 'ENTRYPOINT ["emqx-gpt"]' in DOCKERFILE
    assert 'CMD ["serve"]' in DOCKERFILE
    assert "/data" in instructions("VOLUME")[0]


def test_the_image_names_its_settings():
    env = _env_of_image()
    assert {name for name in env if name in OURS} == {"HOST", "PORT", "DATABASE_URL", "FLOWS"}
    assert env["FLOWS"] == "/app/flows.toml"
    assert env["DATABASE_URL"] == "sqlite:////data/emqx-gpt.db"
