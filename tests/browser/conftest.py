from collections.abc import Iterator

import pytest

from harness.chromium import Chromium


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A running browser; all tests that use it run in one worker process, so that there is one."""
    with Chromium() as browser:
        yield browser
