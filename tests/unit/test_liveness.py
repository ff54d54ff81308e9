"""The worker's sign of life."""

import os
import time
from pathlib import Path

import pytest

from image_service.worker.liveness import INTERVAL, LivenessFile, is_fresh


async def well() -> bool:
    return True


async def unwell() -> bool:
    return False


def touched(path: Path, ago: float) -> None:
    """Give the file the age of one that was touched so many seconds ago."""
    path.touch()
    os.utime(path, (time.time() - ago,) * 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worker.liveness"


async def test_while_all_is_well_the_file_is_fresh(path: Path) -> None:
    alive = LivenessFile(path, well)
    assert not is_fresh(path)
    await alive.refresh()
    assert is_fresh(path)
    touched(path, 3600)
    assert not is_fresh(path)
    await alive.refresh()
    assert is_fresh(path)


async def test_while_something_is_away_the_file_grows_old(path: Path) -> None:
    await LivenessFile(path, unwell).refresh()
    assert not is_fresh(path)
    touched(path, 3600)
    await LivenessFile(path, unwell).refresh()
    assert not is_fresh(path)


def test_two_signs_may_be_missed_but_not_three(path: Path) -> None:
    touched(path, 2.5 * INTERVAL)
    assert is_fresh(path)
    touched(path, 3 * INTERVAL)
    assert not is_fresh(path)


async def test_a_worker_that_ended_is_not_alive(path: Path) -> None:
    alive = LivenessFile(path, well)
    await alive.refresh()
    alive.remove()
    assert not is_fresh(path)
    alive.remove()
