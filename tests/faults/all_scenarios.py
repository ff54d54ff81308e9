"""All scenarios, by name."""

import tests.faults.event_scenarios
import tests.faults.output_scenarios
import tests.faults.scenarios  # noqa: F401  (imported to register their scenarios)
from tests.faults.scenario import REGISTERED as SCENARIOS
from tests.faults.scenario import Scenario

__all__ = ["SCENARIOS", "Scenario"]
