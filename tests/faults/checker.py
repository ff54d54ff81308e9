"""The judge: whether the service kept its promises, told from what its clients saw and from what is there at the end.

found = await violations(Evidence(history=history, database_url=url, storage=folder, grace=20))
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.faults.evidence import Evidence, Running, World, look, look_closely
from tests.faults.rules import RESTING, RULES, Rule
from tests.faults.stories import story_of

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
        world = await look(evidence)
        if _at_rest(evidence, world) or time.monotonic() > deadline:
            break
        await asyncio.sleep(_LOOK_AGAIN)
    await look_closely(evidence, world)
    return await asyncio.to_thread(_judge, evidence, world)


async def violations_without_workers(evidence: Evidence) -> list[Violation]:
    """Judge the queues once more when the workers have ended: what they had not acknowledged is back by then."""
    name = "queues-return-to-zero"
    return list(_broken({name: RULES[name]}, evidence, await look(evidence)))


def _at_rest(evidence: Evidence, world: World) -> bool:
    return not any(found for rule in RESTING.values() for found in rule(evidence.history, world))


def _judge(evidence: Evidence, world: World) -> list[Violation]:
    return list(_broken(RULES, evidence, world))


def _broken(rules: Mapping[str, Rule], evidence: Evidence, world: World) -> Iterator[Violation]:
    for invariant, rule in rules.items():
        for finding in rule(evidence.history, world):
            story = f"{finding.what}\n{story_of(finding, evidence, world)}"
            yield Violation(invariant=invariant, subject=finding.subject, story=story)
