"""The files that are compared, each made when it is needed."""

from dataclasses import replace
from fnmatch import fnmatchcase

from tests.browser.cases import avif, hdr, heic, jpeg, jxl, orientation, others, png, webp
from tests.browser.cases.case import Case
from tests.browser.cases.differences import DIFFERENCES


def all_cases() -> list[Case]:
    """Return every case; their names differ."""
    kinds = (png, jpeg, webp, avif, heic, jxl, others, orientation, hdr)
    return [replace(case, difference=_reason(case.name)) for kind in kinds for case in kind.cases()]


def _reason(name: str) -> str:
    return next((reason for pattern, reason in DIFFERENCES.items() if fnmatchcase(name, pattern)), "")
