"""What a fault scenario is, and the register of all."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.faults.host import Host

Steps: TypeAlias = Callable[[Host], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A scenario; at its end all processes run, and the checker checks the invariants."""

    name: str
    description: str
    run: Steps
    settings: Mapping[str, str]
    standalone: bool
    """Whether it is about one process on SQLite."""


REGISTERED: Final[dict[str, Scenario]] = {}
"""By name; ``all_scenarios`` has them all."""


def scenario(**settings: str) -> Callable[[Steps], Steps]:
    """Register a scenario for API and worker."""
    return _registered(settings, standalone=False)


def on_sqlite() -> Callable[[Steps], Steps]:
    """Register a scenario for the standalone service."""
    return _registered({}, standalone=True)


def _registered(settings: Mapping[str, str], *, standalone: bool) -> Callable[[Steps], Steps]:
    def register(run: Steps) -> Steps:
        name = getattr(run, "__name__", "")
        REGISTERED[name] = Scenario(
            name=name,
            description=(run.__doc__ or "").splitlines()[0],
            run=run,
            settings=settings,
            standalone=standalone,
        )
        return run

    return register
