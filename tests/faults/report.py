"""The summary printed at the end of a run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from tests.faults.checker import Violation
from tests.faults.history import OK, Exchange, Fault, History, Operation, Received
from tests.faults.rules import was_down

READ_ONLY_FAULTS = frozenset({"fail-over", "read-only-database", "serve-standby"})
_MAX_DETAILED = 10


def summary(seed: int, history: History, left_out: Mapping[str, str], found: Sequence[Violation]) -> Iterator[str]:
    """Return the summary of a run, preceded by the details of the first violations."""
    for number, violation in enumerate(found[:_MAX_DETAILED], 1):
        yield f"\nVIOLATION {number} of {len(found)}: {violation.invariant}: {violation.subject}"
        yield violation.details
    accepted = {each.image_id for each in history.of(Operation.UPLOAD) if each.outcome == OK}
    waits = [each.waited for each in history.exchanges if not was_down(history, each)]
    yield "\n".join(
        (
            "",
            f"seed                {seed}",
            f"accepted images     {len(accepted)}",
            *(f"answers to {name:9}{answers}" for name, answers in _answers(history)),
            f"longest answer      {max(waits, default=0):.1f} s",
            f"faults              {len(history.faults)}: {_counted(Counter(fault.kind for fault in history.faults))}",
            *(f"{name:20}{_arrivals(got)}" for name, got in history.received.items()),
            *(f"{fault.kind:20}{told}" for fault, told in _outages(history)),
            *(f"left out            {kind}: {why}" for kind, why in left_out.items()),
            f"violations          {len(found)}{': ' if found else ''}{_counted(Counter(v.invariant for v in found))}",
        )
    )


def _arrivals(got: Sequence[Received]) -> str:
    different = {each.event_id for each in got if each.event_id}
    return f"{len(got)} arrivals of {len(different)} events, {sum(not each.accepted for each in got)} not confirmed"


def _outages(history: History) -> Iterator[tuple[Fault, str]]:
    """Return how long no upload was accepted around each fault that makes the database read-only, and the answers."""
    uploads = sorted(history.of(Operation.UPLOAD), key=lambda each: each.ended)
    accepted = [each.ended for each in uploads if each.outcome == OK]
    for fault in history.faults:
        if fault.kind in READ_ONLY_FAULTS:
            since = max((ended for ended in accepted if ended < fault.began), default=fault.began)
            until = min((ended for ended in accepted if ended > fault.ended), default=fault.ended)
            times = [since, *(ended for ended in accepted if since < ended < until), until]
            gap = max(later - earlier for earlier, later in pairwise(times))
            answers = Counter(_status(each) for each in uploads if since < each.ended <= until)
            yield fault, f"of {fault.ended - fault.began:.1f} s: no upload for {gap:.1f} s; answers {_counted(answers)}"


def _status(each: Exchange) -> str:
    return f"{each.status_code} {each.code}" if each.code else str(each.status_code or "none")


def _answers(history: History) -> Iterator[tuple[str, str]]:
    for operation in Operation:
        answers = Counter(map(_status, history.of(operation)))
        if answers:
            yield operation, _counted(answers)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))
