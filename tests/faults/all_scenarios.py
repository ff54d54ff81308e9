"""All scenarios, by name."""

from tests.faults import output_scenarios, scenarios
from tests.faults.scenario import REGISTERED, Scenario

__all__ = ["SCENARIOS", "Scenario", "output_scenarios", "scenarios"]

SCENARIOS = REGISTERED
