"""Collects history, rows, files and log lines about a violation."""

from collections.abc import Iterator
from itertools import islice

from tests.faults.evidence import Evidence, Snapshot
from tests.faults.finding import Finding
from tests.faults.history import Exchange, Fault

_MOST_LINES = 80
_AROUND = 5.0
"""Seconds before and after an image's requests within which faults are listed."""


def diagnostics_for(finding: Finding, evidence: Evidence, snapshot: Snapshot) -> str:
    """Return requests, concurrent faults, rows, files and log lines of the finding's subject."""
    subject = finding.subject
    own = [each for each in evidence.history.exchanges if each.image_id == subject or each is finding.exchange]
    names = {subject} if subject in evidence.history.by_image() or subject in snapshot.images else set()
    names |= {each.request_id for each in own if each.request_id}
    parts = {
        "history": islice(map(_formatted, _with_faults(own, evidence)), _MOST_LINES),
        "row": [str(dict(snapshot.images[subject]))] if subject in snapshot.images else [],
        "thumbnails": [str(dict(row)) for row in snapshot.thumbnails.get(subject, ())],
        "files": _files(subject, snapshot),
        "logs": islice(_logged(names, evidence), _MOST_LINES),
    }
    return "\n".join(f"  {name}: {line}" for name, lines in parts.items() for line in lines)


def _with_faults(own: list[Exchange], evidence: Evidence) -> list[Exchange | Fault]:
    if not own:
        return []
    since, until = own[0].began - _AROUND, own[-1].ended + _AROUND
    near = [fault for fault in evidence.history.faults if fault.began <= until and fault.ended >= since]
    return sorted([*own, *near], key=lambda entry: entry.began)


def _formatted(entry: Exchange | Fault) -> str:
    if isinstance(entry, Fault):
        return f"{entry.began:.3f}-{entry.ended:.3f} FAULT {entry.kind} of {entry.subject}"
    answer = f"{entry.status_code} {entry.code or ''}" if entry.status_code is not None else f"no answer: {entry.error}"
    details = ", ".join(str(detail) for detail in (entry.sent, entry.seen) if detail is not None)
    return f"{entry.began:.3f}-{entry.ended:.3f} {entry.operation} at {entry.server}: {answer} {details}"


def _files(subject: str, snapshot: Snapshot) -> Iterator[str]:
    for path in sorted(path for path in snapshot.files if subject in path):
        try:
            status = (snapshot.storage / path).stat()
        except OSError:
            yield f"{path} existed and is gone now"
        else:
            yield f"{path} {status.st_size} bytes, written {status.st_mtime:.3f}"


def _logged(names: set[str], evidence: Evidence) -> Iterator[str]:
    for process in evidence.processes:
        for line in process.log.read_text(errors="replace").splitlines():
            if any(name in line for name in names):
                yield f"{process.name} {line}"
