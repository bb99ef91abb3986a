"""`make mutants` takes each guard out: the guards stand where it looks, and so do their tests."""

from __future__ import annotations

import pytest

from tests.attacks.mutants import MUTANTS, Mutant
from tests.rig import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: f"{one.file}:{one.new.strip()[:40]}")
def test_the_guard_and_its_test_are_there(mutant: Mutant) -> None:
    assert mutant.old in (ROOT / mutant.file).read_text("utf-8")
    file, _, name = mutant.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text("utf-8")
