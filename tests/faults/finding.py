"""What a rule finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tests.faults.evidence import Snapshot
from tests.faults.history import Exchange, History

DONE, ERROR = "DONE", "ERROR"


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation found by a rule."""

    subject: str
    """An image's id, or another subject."""
    what: str
    exchange: Exchange | None = None
    """The request that shows it, if it was a single one."""


Rule: TypeAlias = Callable[[History, Snapshot], Iterator[Finding]]
