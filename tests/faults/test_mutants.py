"""Every mutant's patch applies to the source, and its scenario and invariant exist."""

from pathlib import Path

import pytest

from tests.faults.all_scenarios import SCENARIOS
from tests.faults.mutants import MUTANTS, PATCHES, Mutant, mutated
from tests.faults.rules import RULES


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_patch_applies_to_the_source(mutant: Mutant, tmp_path: Path) -> None:
    assert mutant.scenario in SCENARIOS
    assert mutant.invariant in RULES
    project = mutated(mutant, tmp_path)
    changed = mutant.patch.read_text().split("+++ b/", 1)[1].splitlines()[0]
    assert (project / changed).read_text() != (Path(__file__).parents[2] / changed).read_text()


def test_every_patch_belongs_to_a_mutant() -> None:
    assert {patch.stem for patch in PATCHES.glob("*.patch")} == {mutant.name for mutant in MUTANTS}
