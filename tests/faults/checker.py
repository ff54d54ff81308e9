"""The judge: whether the service kept its promises, told from what its clients saw and from what is there at the end.

found = await violations(Evidence(history=history, database_url=url, storage=folder, grace=20))
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.faults.diagnostics import diagnostics_for
from tests.faults.evidence import Evidence, Running, Snapshot, complete_snapshot, take_snapshot
from tests.faults.rules import RESTING, RULES, Rule

__all__ = ["Evidence", "Running", "Violation", "violations", "violations_without_workers"]

_LOOK_AGAIN = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was not kept."""

    invariant: str
    subject: str
    """An image's id, or whatever else it is about."""
    story: str
    """What is wrong, and all that is known about the image."""


async def violations(evidence: Evidence) -> list[Violation]:
    """Wait until the service has come to rest, for as long as the evidence grants it; then judge."""
    deadline = time.monotonic() + evidence.grace
    while True:
        snapshot = await take_snapshot(evidence)
        if _at_rest(evidence, snapshot) or time.monotonic() > deadline:
            break
        await asyncio.sleep(_LOOK_AGAIN)
    await complete_snapshot(evidence, snapshot)
    return await asyncio.to_thread(_judge, evidence, snapshot)


async def violations_without_workers(evidence: Evidence) -> list[Violation]:
    """Judge the queues once more when the workers have ended: what they had not acknowledged is back by then."""
    name = "queues-return-to-zero"
    return list(_broken({name: RULES[name]}, evidence, await take_snapshot(evidence)))


def _at_rest(evidence: Evidence, snapshot: Snapshot) -> bool:
    return not any(found for rule in RESTING.values() for found in rule(evidence.history, snapshot))


def _judge(evidence: Evidence, snapshot: Snapshot) -> list[Violation]:
    return list(_broken(RULES, evidence, snapshot))


def _broken(rules: Mapping[str, Rule], evidence: Evidence, snapshot: Snapshot) -> Iterator[Violation]:
    for invariant, rule in rules.items():
        for finding in rule(evidence.history, snapshot):
            story = f"{finding.what}\n{diagnostics_for(finding, evidence, snapshot)}"
            yield Violation(invariant=invariant, subject=finding.subject, story=story)
