"""Runs every scenario of ``scenarios`` and ``output_scenarios``: faults that a single kill does not show."""

from collections.abc import Callable

import pytest

from tests.faults.all_scenarios import SCENARIOS, Scenario
from tests.faults.host import Host


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
async def test_scenario_violates_no_invariant(
    scenario: Scenario, make_host: Callable[..., Host], make_standalone: Callable[..., Host]
) -> None:
    make = make_standalone if scenario.standalone else make_host
    host = make(**scenario.settings)
    await scenario.run(host)
    await host.assert_invariants()
