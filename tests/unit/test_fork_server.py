"""A forked process is like a started one."""

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from harness.fork_server import PROGRAM
from harness.processes import ProcessGroup, wait_until
from harness.servers import ForkServer

PROBE = "tests.unit.test_fork_server"
"""This module, as a program."""


def main() -> NoReturn:
    """Report what this process was given, then end as the first argument says."""
    report: dict[str, Any] = {
        "arguments": sys.argv[1:],
        "environment": {**os.environ},
        "folder": str(Path.cwd()),
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "random": random.random(),
        "threads": threading.active_count(),
        "child signals": str(signal.getsignal(signal.SIGCHLD)),
        "descriptors": len([*Path("/proc/self/fd").iterdir()]),
    }
    sys.stdout.write(f"{json.dumps(report)}\n")
    sys.stdout.flush()
    match sys.argv[1]:
        case "wait":
            signal.pause()
        case "fail":
            raise ValueError("as requested")
    sys.exit(int(sys.argv[1]))


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    group = ProcessGroup(folder=tmp_path)
    yield group
    group.kill()


def report(group: ProcessGroup) -> dict[str, Any]:
    """Return what the last process has reported."""
    assert wait_until(lambda: group.log.exists() and group.log.read_text().endswith("}\n"), timeout=10)
    last: dict[str, Any] = json.loads(group.log.read_text().splitlines()[-1])
    return last


def test_it_has_what_it_is_given(group: ProcessGroup, fork_server: str, tmp_path: Path) -> None:
    first = group.fork(fork_server, PROBE, "wait", "for", tmp_path, env={"SETTING": "value"})
    seen = report(group)
    assert seen["arguments"] == ["wait", "for", str(tmp_path)]
    environment = {"SETTING": "value", "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    assert seen["environment"].pop("PYTHONPATH")
    assert {name: seen["environment"].pop(name) for name in environment} == environment
    assert set(seen["environment"]) <= {"LC_CTYPE"}
    assert seen["folder"] == str(tmp_path)
    assert (seen["group"], seen["session"], seen["threads"]) == (first.pid, os.getsid(0), 1)
    assert (seen["child signals"], seen["descriptors"]) == (str(signal.SIG_DFL), 4)


def test_two_have_one_group_and_random_numbers_of_their_own(group: ProcessGroup, fork_server: str) -> None:
    group.fork(fork_server, PROBE, "wait", env={})
    one = report(group)
    group.fork(fork_server, PROBE, "0", env={}).wait(10)
    other = report(group)
    assert other["group"] == one["group"]
    assert other["random"] != one["random"]


@pytest.mark.parametrize(("argument", "status"), [("0", 0), ("3", 3), ("fail", 1)])
def test_it_ends_with_the_status_of_the_program(
    group: ProcessGroup, fork_server: str, argument: str, status: int
) -> None:
    process = group.fork(fork_server, PROBE, argument, env={})
    assert process.wait(30) == status
    assert (process.poll(), process.returncode) == (status, status)
    assert ("ValueError: as requested" in group.tail()) == (argument == "fail")


def test_it_ends_by_a_signal(group: ProcessGroup, fork_server: str) -> None:
    process = group.fork(fork_server, PROBE, "wait", env={})
    report(group)
    assert process.poll() is None
    with pytest.raises(psutil.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM
    assert not process.is_running()


def test_kill_ends_the_group(group: ProcessGroup, fork_server: str) -> None:
    processes = [group.fork(fork_server, PROBE, "wait", env={}) for _ in range(3)]
    group.kill()
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 3


def test_it_is_the_program(group: ProcessGroup, fork_server: str) -> None:
    process = group.fork(fork_server, PROGRAM, "worker", env={"LEASE_SECONDS": "none"})
    assert process.wait(30) == 2
    assert group.tail().startswith("image-service: LEASE_SECONDS")


def test_it_ends_with_a_fork_server_that_is_killed(tmp_path: Path) -> None:
    group = ProcessGroup(folder=tmp_path)
    with ForkServer(tmp_path / "server") as server:
        process = group.fork(server.url, PROBE, "wait", env={})
        report(group)
        server.kill()
        assert process.wait(10) == -signal.SIGKILL
    group.kill()
