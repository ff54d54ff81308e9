"""Stories in which something goes wrong that one death alone does not show; ``scenarios`` tells them."""

from collections.abc import Callable

import pytest

from tests.faults.machine import Machine
from tests.faults.scenarios import SCENARIOS, Scenario


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
async def test_nothing_is_lost_when(scenario: Scenario, machine_with: Callable[..., Machine]) -> None:
    machine = machine_with(**scenario.settings)
    await scenario.play(machine)
    await machine.must_be_well()
