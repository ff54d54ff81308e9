"""The worker's liveness file."""

import os
import time
from pathlib import Path

import pytest

from image_service.worker.liveness import INTERVAL, LivenessFile, is_fresh


async def healthy() -> bool:
    return True


async def unhealthy() -> bool:
    return False


def touched(path: Path, ago: float) -> None:
    """Touch the file as if ``ago`` seconds ago."""
    path.touch()
    os.utime(path, (time.time() - ago,) * 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worker.liveness"


async def test_file_is_fresh_while_healthy(path: Path) -> None:
    liveness = LivenessFile(path, healthy)
    assert not is_fresh(path)
    await liveness.refresh()
    assert is_fresh(path)
    touched(path, 3600)
    assert not is_fresh(path)
    await liveness.refresh()
    assert is_fresh(path)


async def test_file_becomes_stale_while_unhealthy(path: Path) -> None:
    await LivenessFile(path, unhealthy).refresh()
    assert not is_fresh(path)
    touched(path, 3600)
    await LivenessFile(path, unhealthy).refresh()
    assert not is_fresh(path)


def test_file_is_stale_after_three_intervals(path: Path) -> None:
    touched(path, 2.5 * INTERVAL)
    assert is_fresh(path)
    touched(path, 3 * INTERVAL)
    assert not is_fresh(path)


async def test_removed_file_is_not_fresh(path: Path) -> None:
    liveness = LivenessFile(path, healthy)
    await liveness.refresh()
    liveness.remove()
    assert not is_fresh(path)
    liveness.remove()
