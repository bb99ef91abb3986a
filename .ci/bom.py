"""The bill of materials (CycloneDX) of what `pip install emqx-gpt[otel,prices]` brings.

    python .ci/bom.py dist/emqx-gpt.cdx.json

It is read from this environment, without what only tests and demo need, and checked against the
schema. Raises SystemExit with what is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NAME, EXTRAS = "emqx-gpt", frozenset({"otel", "prices"})
VERSION = SchemaVersion.V1_6


def closure(name: str, extras: frozenset[str]) -> set[str]:
    """Names of all that it needs, itself included."""
    found: set[tuple[str, frozenset[str]]] = set()
    todo = [(canonicalize_name(name), extras)]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        found.add(one)
        for text in requires(one[0]) or ():
            need = Requirement(text)
            markers = need.marker
            if markers is None or any(markers.evaluate({"extra": e}) for e in one[1] | {""}):
                todo.append((canonicalize_name(need.name), frozenset(need.extras)))
    return {one for one, _ in found}


def bill() -> dict[str, Any]:
    """The document; components of this environment that the service needs."""
    made = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml",
         "--mc-type", "application", "--spec-version", "1.6", "--output-reproducible",
         "--output-format", "JSON", "-o", "-", sys.executable],
        check=True, capture_output=True,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(made.stdout)
    names = closure(NAME, EXTRAS) - {NAME}
    kept = [c for c in document["components"] if canonicalize_name(c["name"]) in names]
    missing = names - {canonicalize_name(c["name"]) for c in kept}
    if missing:
        raise SystemExit(f"not installed here: {', '.join(sorted(missing))}")
    root = document["metadata"]["component"]
    refs = {c["bom-ref"] for c in kept} | {root["bom-ref"]}
    for one in (*kept, root):
        one.pop("properties", None)  # where it was installed from says nothing of the program
        one.pop("externalReferences", None)
    document["components"] = kept
    document["dependencies"] = [
        {**one, "dependsOn": [ref for ref in one.get("dependsOn", ()) if ref in refs]}
        for one in document["dependencies"]
        if one["ref"] in refs
    ]
    return document


def fault(text: str) -> str | None:
    """What the schema refuses in a document; None: nothing."""
    found = JsonStrictValidator(VERSION).validate_str(text)
    return None if found is None else str(found.data)[:500]


def main() -> None:
    text = json.dumps(bill(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if found := fault(text):
        raise SystemExit(f"the bill of materials is not valid: {found}")
    path = Path(sys.argv[1])
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    sys.stdout.write(f"{path}: {len(json.loads(text)['components'])} components\n")


if __name__ == "__main__":
    main()
