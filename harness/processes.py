"""Child processes that end with the test run, however it ends."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import TypeAlias

import psutil

from harness.fork_server import Order
from harness.forked import ForkedProcess, fork
from harness.pace import Deadline

# Below the kernel's range of ephemeral ports: the port of a stopped server stays free.
PORTS = range(15_000, 32_000)
SOURCE = Path(__file__).resolve().parents[1] / "src"
"""The program's source. In the PYTHONPATH of child processes it makes the program run without being installed."""


Process: TypeAlias = psutil.Popen | ForkedProcess


class ServerError(Exception):
    """A server needed by the tests could not be started or stopped."""


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    while True:
        port = SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until(condition: Callable[[], bool], *, timeout: float, interval: float = 0.02) -> bool:
    """Wait for the condition; return whether it became true before the scaled time limit."""
    deadline = Deadline(timeout)
    while not condition():
        if deadline.passed:
            return False
        time.sleep(interval)
    return True


@dataclass(kw_only=True)
class ProcessGroup:
    """Processes that are killed together, at the latest when the test run ends, even by SIGKILL."""

    folder: Path
    """Their working directory; removed by the watchdog if the test run dies without cleaning up."""
    account: int | None = None
    """The user and group that they run as; None for the current ones."""
    _members: list[Process] = field(default_factory=list)
    _watchdog: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def spawn(self, *command: str | Path, env: Mapping[str, str]) -> psutil.Popen:
        """Start one more process, with its output in the log."""
        with self.log.open("ab") as log:
            process = psutil.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment(env),
                process_group=self._group,
                user=self.account,
                group=self.account,
                extra_groups=None if self.account is None else [],
            )
        self._add(process)
        return process

    def fork(self, server: str, program: str, *arguments: str | Path, env: Mapping[str, str]) -> ForkedProcess:
        """Have a fork server start one more process, which runs ``main`` of the module ``program``."""
        order = Order(
            program=program,
            arguments=[str(argument) for argument in arguments],
            environment=self._environment(env),
            folder=str(self.folder.absolute()),
            output=str(self.log.absolute()),
            errors=str(self.log.absolute()),
            group=self._group,
        )
        process = fork(server, order)
        self._add(process)
        return process

    @property
    def _group(self) -> int:
        """The process group that the next process joins; 0 for a new one."""
        return self._members[0].pid if self._members else 0

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCE),
            "TMPDIR": str(self.folder.absolute()),
            **env,
        }

    def _add(self, process: Process) -> None:
        self._members.append(process)
        if self._watchdog is None:
            self._watchdog = self._start_watchdog(process.pid)

    def _start_watchdog(self, group: int) -> subprocess.Popen[bytes]:
        """Start a shell that kills the group when our end of a pipe is closed, which the kernel does when we die.

        PR_SET_PDEATHSIG would be bound to the starting thread, which is often short-lived.
        """
        # SIGQUIT lets PostgreSQL free its shared memory.
        script = 'read -r _; kill -s QUIT -- "-$1"; sleep 1; kill -s KILL -- "-$1"; rm -rf -- "$2"'
        return subprocess.Popen(  # noqa: S603  (constant script)
            ["/bin/sh", "-c", script, "watchdog", str(group), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end(self, process: Process, sign: signal.Signals, *, timeout: float) -> None:
        """Send one process a signal, wait for it to exit, then kill the rest of the group."""
        family = self._family()  # before the signal: a dead process has no children
        process.send_signal(sign)
        try:
            if not wait_until(lambda: process.poll() is not None, timeout=timeout):
                raise ServerError(f"{process.args} did not end within {timeout} s of {sign.name}\n{self.tail()}")
        finally:
            self._kill(family)

    def kill(self) -> None:
        """SIGKILL every process and its descendants, parents first; return when all are gone."""
        self._kill(self._family())

    def _family(self) -> list[psutil.Process]:
        return [process for member in self._members for process in [member, *_descendants(member)]]

    def _kill(self, family: list[psutil.Process]) -> None:
        for process in family:
            _kill(process)
        for member in self._members:
            member.wait()
        if not wait_until(lambda: not any(map(_lives, family)), timeout=10.0):
            raise ServerError(f"still alive after SIGKILL: {[process for process in family if _lives(process)]}")
        self._members.clear()
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None

    def tail(self) -> str:
        """Return the end of the log, for error messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:]) if self.log.exists() else ""


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _lives(process: psutil.Process) -> bool:
    """Whether the process runs. A zombie does not: in some containers, init never reaps orphans."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
