"""Checks the invariants against the clients' history and a snapshot of the final state.

found = await violations(Evidence(history=history, database_url=url, storage=folder, grace=20))
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from harness.pace import Deadline
from tests.faults.diagnostics import diagnostics_for
from tests.faults.evidence import Evidence, Running, Snapshot, add_decoders, add_responses, take_snapshot
from tests.faults.finding import Rule
from tests.faults.rules import IDLE_RULES, RULES

__all__ = ["Evidence", "Running", "Violation", "violations", "violations_without_workers"]

_POLL_INTERVAL = 0.25
_LONGEST_LEASE = 90.0
"""Seconds; longer than LEASE_SECONDS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A violated invariant."""

    invariant: str
    subject: str
    """An image's id, or another subject."""
    details: str
    """What is wrong, followed by history, rows, files and log lines."""


async def violations(
    evidence: Evidence, *, observe: Callable[[Evidence], Awaitable[Snapshot]] = take_snapshot
) -> list[Violation]:
    """Wait until the service is idle, at most ``evidence.grace`` seconds; then check all invariants.

    The time starts again when the last lease ends: a claim whose reply was lost holds its image for a lease.
    """
    deadline, longest_lease = Deadline(evidence.grace), Deadline(_LONGEST_LEASE)
    leased = False
    while True:
        snapshot = await observe(evidence)
        if _is_idle(evidence, snapshot):
            await add_decoders(evidence, snapshot)
            if _is_idle(evidence, snapshot):
                break
        if evidence.grace and snapshot.has_leases() and not longest_lease.passed:
            leased = True
        elif leased:
            deadline, leased = Deadline(evidence.grace), False
        elif deadline.passed:
            await add_decoders(evidence, snapshot)
            break
        await asyncio.sleep(_POLL_INTERVAL)
    await add_responses(evidence, snapshot)
    return await asyncio.to_thread(_check, evidence, snapshot)


async def violations_without_workers(evidence: Evidence) -> list[Violation]:
    """Check the queues after the workers have stopped: unacknowledged messages have returned by then."""
    name = "queues-return-to-zero"
    return list(_violated({name: RULES[name]}, evidence, await take_snapshot(evidence)))


def _is_idle(evidence: Evidence, snapshot: Snapshot) -> bool:
    return not any(found for rule in IDLE_RULES.values() for found in rule(evidence.history, snapshot))


def _check(evidence: Evidence, snapshot: Snapshot) -> list[Violation]:
    return list(_violated(RULES, evidence, snapshot))


def _violated(rules: Mapping[str, Rule], evidence: Evidence, snapshot: Snapshot) -> Iterator[Violation]:
    for invariant, rule in rules.items():
        for finding in rule(evidence.history, snapshot):
            details = f"{finding.what}\n{diagnostics_for(finding, evidence, snapshot)}"
            yield Violation(invariant=invariant, subject=finding.subject, details=details)
