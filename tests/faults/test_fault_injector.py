"""Tests the fault injector's tools: schedule, small disk, clock and disk faults of a process."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.cluster import PROCESS_FAULTS
from tests.faults.disk import Disk
from tests.faults.fault_injector import BROKER_REST, LANES, FaultInjector, schedule

LONG = 600.0


def test_schedule_depends_only_on_the_seed() -> None:
    assert schedule(1, LONG) == schedule(1, LONG)
    assert schedule(1, LONG) != schedule(2, LONG)


@pytest.mark.parametrize("seed", range(5))
def test_schedule_contains_every_kind_of_fault(seed: int) -> None:
    for lane, (_, kinds) in LANES.items():
        planned = schedule(seed, LONG)[lane]
        assert {each.kind for each in planned} == {kind.name for kind in kinds}
        assert all(earlier.at <= later.at for earlier, later in pairwise(planned))
        assert all(each.at + each.seconds <= LONG for each in planned)


@pytest.mark.parametrize("seed", range(5))
def test_schedule_leaves_time_between_broker_restarts(seed: int) -> None:
    ends = [each.at for each in schedule(seed, LONG)["broker"] if each.kind != "delete-queue"]
    assert all(later - earlier > BROKER_REST - 0.02 for earlier, later in pairwise(ends))


def test_every_kind_of_fault_has_an_implementation() -> None:
    for _, kinds in LANES.values():
        assert all(hasattr(FaultInjector, "_" + kind.name.replace("-", "_")) for kind in kinds)


def test_small_disk_can_be_filled_and_emptied(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    disk.start()
    try:
        file = disk.folder / "file"
        write = [*disk.entrance, sys.executable, "-c", f"open({str(file)!r}, 'wb').write(bytes(1 << 20))"]
        if disk.small:
            disk.fill()
            assert subprocess.run(write, check=False, capture_output=True).returncode != 0  # noqa: S603  (a constant command)
            disk.empty()
        subprocess.run(write, check=True)  # noqa: S603  (a constant command)
        assert (disk.outside / "file").stat().st_size == 1 << 20
    finally:
        disk.close()


def test_process_gets_wrong_clock_and_slow_disk(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("-3600")
    (tmp_path / "fsync").write_text("0.3")
    program = """
import os, sys, time
print(time.time())
began = time.monotonic()
os.fsync(os.open(sys.argv[1], os.O_RDONLY))
print(time.monotonic() - began)
"""
    env = {**os.environ, "PYTHONPATH": str(PROCESS_FAULTS), "PROCESS_FAULTS_FOLDER": str(tmp_path)}
    command = [sys.executable, "-c", program, str(tmp_path)]
    told = subprocess.run(command, env=env, check=True, capture_output=True, text=True)  # noqa: S603  (a constant command)
    clock, slow = map(float, told.stdout.split())
    assert clock == pytest.approx(tmp_path.joinpath("fsync").stat().st_mtime - 3600, abs=30)
    assert slow >= 0.3
