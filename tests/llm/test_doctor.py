"""What `doctor` says of lists of models as servers really give them (doctor-models-odd)."""

from __future__ import annotations

import pytest

from service.cli.emqx_doctor import ask_models
from service.emqx.findings import Level
from tests.fakes.model import FakeModel
from tests.rig import load_flows, make_settings

FLOWS = """
[flows.chat]
request = "in/${user}"
reply = "out/${user}"
model = "m"
"""
JSON, HTML = "application/json", "text/html"


@pytest.mark.parametrize(
    ("content", "kind", "level", "words"),
    [
        (b'[{"id": "m", "object": "model"}]', JSON, Level.OK, ""),
        (b'{"object": "list", "data": [{"id": "models/m"}]}', JSON, Level.OK, ""),
        (b'{"object": "list", "data": [{"id": "*"}]}', JSON, Level.OK, ""),
        (b'{"object": "list", "data": [{"id": "x/*"}]}', JSON, Level.FAIL, "does not list m"),
        (b'{"error": "Unexpected endpoint or method. (GET /models)"}', JSON, Level.WARN, "no list"),
        (b"<html>Open WebUI</html>", HTML, Level.WARN, "no list"),
        (b"5", JSON, Level.WARN, "no list"),
    ],
)
async def test_a_list_of_models(content: bytes, kind: str, level: Level, words: str) -> None:
    async with FakeModel() as model:
        model.listing = (content, kind)
        settings = make_settings(openai_api_key="sk", openai_base_url=model.base_url)
        (found,) = await ask_models(settings, load_flows(FLOWS))
        assert found.level is level
        assert words in str(found)


async def test_an_address_without_v1_is_named_as_such() -> None:
    async with FakeModel() as model:
        base_url = model.base_url.removesuffix("/v1")
        settings = make_settings(openai_api_key="sk", openai_base_url=base_url)
        (found,) = await ask_models(settings, load_flows(FLOWS))
        assert found.level is Level.FAIL
        assert f"{base_url}/models answered 404" in str(found)
        assert f"base_url probably lacks /v1: {base_url}/v1" in str(found)
