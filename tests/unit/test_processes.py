"""Processes that a test run starts end with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.processes import ProcessGroup, ServerError, wait_until


def test_kill_ends_all_descendants(tmp_path: Path) -> None:
    group = ProcessGroup(folder=tmp_path)
    server = group.spawn("/bin/sh", "-c", "sleep 600 & sleep 600 & wait", env={})
    assert wait_until(lambda: len(server.children()) == 2, timeout=10)
    family = server.children()
    group.kill()
    assert not any(_lives(process) for process in [server, *family])


def test_end_waits_for_the_process(tmp_path: Path) -> None:
    group = ProcessGroup(folder=tmp_path)
    server = group.spawn("/bin/sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done", env={})
    assert wait_until(lambda: "ready" in group.tail(), timeout=10)
    group.end(server, signal.SIGTERM, timeout=10)
    assert server.returncode == 7


def test_end_leaves_no_children(tmp_path: Path) -> None:
    group = ProcessGroup(folder=tmp_path)
    server = group.spawn("/bin/sh", "-c", "sleep 600 & wait", env={})
    assert wait_until(lambda: len(server.children()) == 1, timeout=10)
    family = server.children()
    group.end(server, signal.SIGKILL, timeout=10)
    assert not any(_lives(process) for process in family)


def test_end_kills_a_process_that_does_not_finish(tmp_path: Path) -> None:
    group = ProcessGroup(folder=tmp_path)
    server = group.spawn("/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.01; done", env={})
    assert wait_until(lambda: "deaf" in group.tail(), timeout=10)
    with pytest.raises(ServerError, match=r"(?s)did not end within 0.1 s of SIGTERM.*deaf"):
        group.end(server, signal.SIGTERM, timeout=0.1)
    assert not _lives(server)


def test_group_and_folder_are_removed_when_the_test_run_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    run = (
        "import pathlib, sys, time; from harness.processes import ProcessGroup;"
        "group = ProcessGroup(folder=pathlib.Path(sys.argv[1]));"
        "print(*(group.spawn('/bin/sleep', '600', env={}).pid for _ in range(2)), flush=True);"
        "time.sleep(600)"
    )
    with subprocess.Popen(  # noqa: S603  (our own code)
        [sys.executable, "-c", run, str(folder)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as test_run:
        assert test_run.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in test_run.stdout.readline().split()]
        assert len(servers) == 2
        assert all(map(_lives, servers))
        os.kill(test_run.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(map(_lives, servers)) and not folder.exists(), timeout=10)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
