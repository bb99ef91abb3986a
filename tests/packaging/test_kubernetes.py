"""kubernetes/: right by Kubernetes' own schemas, and in step with the image and the service."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service import __version__
from service.settings import Settings
from service.supervisor import STOP
from service.units import seconds

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "kubernetes").glob("*.yaml"))
VERSIONS = ("1.30", "1.37")  # the oldest and the newest that these are for
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text("utf-8")))


def workload(file: Path) -> dict[str, Any]:
    kinds = ("StatefulSet", "Deployment")
    return next(one for one in documents(file) if one["kind"] in kinds)


def container(file: Path) -> dict[str, Any]:
    return dict(workload(file)["spec"]["template"]["spec"]["containers"][0])


def validate(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_fits_the_schema(file: Path, version: str) -> None:
    for document in documents(file):
        validate(document, version)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_does_not_fit_is_found(file: Path) -> None:
    for path, value in (
        (("spec", "replicas"), "many"),
        (("spec", "template", "spec", "automountServiceAcountToken"), False),
        (("spec", "template", "spec", "containers", 0, "livenessProbe", "httpget"), {}),
        (("spec", "template", "spec", "volumes", 0, "configMap", "nam"), "x"),
    ):
        broken = at = copy.deepcopy(workload(file))
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            validate(broken, VERSIONS[-1])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_they_fit_the_image_and_the_service(file: Path) -> None:
    spec, ours = workload(file)["spec"], container(file)
    pod = spec["template"]["spec"]
    env = {one["name"]: one["value"] for one in ours["env"]}
    assert set(env) <= {name.upper() for name in Settings.model_fields}
    assert pod["terminationGracePeriodSeconds"] > seconds(env["GRACE"]) + STOP
    uid = int(re.search(r"^USER (\d+)", DOCKERFILE, re.MULTILINE)[1])  # type: ignore[index]
    assert pod["securityContext"]["runAsUser"] == uid
    assert ours["image"] == f"emqx-gpt:{__version__}"
    assert ours["ports"][0]["containerPort"] == int(env["PORT"])
    mounts = {one["mountPath"]: one for one in ours["volumeMounts"]}
    assert not any("subPath" in one for one in mounts.values())  # would never be updated
    assert str(Path(env["FLOWS"]).parent) in mounts
    volumes = {one["name"] for one in pod["volumes"]}
    volumes |= {one["metadata"]["name"] for one in spec.get("volumeClaimTemplates", [])}
    assert {one["name"] for one in mounts.values()} == volumes


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_selectors_find_the_pods(file: Path) -> None:
    found = documents(file)
    labels = workload(file)["spec"]["template"]["metadata"]["labels"]
    for document in found:
        selector = document["spec"]["selector"]
        assert selector.get("matchLabels", selector).items() <= labels.items()
    service = next(one for one in found if one["kind"] == "Service")
    names = {one["name"] for one in container(file)["ports"]}
    assert {one["targetPort"] for one in service["spec"]["ports"]} <= names


def test_sqlite_has_one_process_and_replicas_none_of_it() -> None:
    one, several = (
        workload(ROOT / "kubernetes" / name) for name in ("emqx-gpt.yaml", "replicas.yaml")
    )
    assert (one["kind"], one["spec"]["replicas"]) == ("StatefulSet", 1)
    assert several["spec"]["replicas"] > 1
    assert "sqlite" not in yaml.safe_dump(several)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_secret_stands_in_them(file: Path) -> None:
    secrets = {"OPENAI_API_KEY", "EMQX_API_SECRET", "WEBHOOK_TOKEN", "OPERATOR_TOKEN"}
    names = {one["name"] for one in container(file)["env"]}
    assert not names & secrets
    assert container(file)["envFrom"] == [{"secretRef": {"name": "emqx-gpt"}}]
