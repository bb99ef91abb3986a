"""What `make test` does not run is still there when `make long` comes."""

from __future__ import annotations

import importlib

import pytest

from tests.rig import ROOT

FIXTURES = sorted(ROOT.glob("tests/**/conftest.py"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.parent.name)
def test_the_fixtures_of_a_folder_can_be_imported(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert importlib.import_module(name)
