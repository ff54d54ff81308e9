"""A thumbnail looks as the browser shows the original: its colours, and which way up it is."""

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from harness.chromium import Chromium
from image_service.domain.image import ImageFormat
from tests.browser.cases import all_cases
from tests.browser.cases.case import Case
from tests.browser.cases.differences import DIFFERENCES
from tests.browser.comparison import HEADING, compare

CASES = all_cases()
SAME = [case for case in CASES if not case.difference]
OTHER = [case for case in CASES if case.difference]


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.name)
def test_looks_as_in_the_browser(chromium: Chromium, tmp_path: Path, case: Case) -> None:
    found = compare(case, chromium, tmp_path)
    assert found.alike, f"\n{HEADING}\n{found}"


@pytest.mark.parametrize("case", OTHER, ids=lambda case: case.name)
def test_a_difference_on_purpose_is_still_there(chromium: Chromium, tmp_path: Path, case: Case) -> None:
    found = compare(case, chromium, tmp_path)
    assert not found.alike, f"remove its reason from the table of differences:\n{HEADING}\n{found}"
    assert found.same_size or found.service is None or found.browser is None


def test_cases_differ_in_name_and_content() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    assert {case.format for case in CASES} == set(ImageFormat)


@pytest.mark.parametrize("pattern", DIFFERENCES)
def test_every_difference_concerns_a_case(pattern: str) -> None:
    assert any(fnmatchcase(case.name, pattern) for case in CASES)
