"""Processes that end with the test run, however it ends."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

import psutil

# Below the range from which the kernel picks the near end of outgoing connections: a server that is down for a moment
# finds its port still free.
PORTS = range(15_000, 32_000)
SOURCE = Path(__file__).resolve().parents[1] / "src"
"""The program's source. In the PYTHONPATH of child processes it makes the program run without being installed."""


class ServerError(Exception):
    """A server that the tests need could not be started or stopped."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        port = SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until(condition: Callable[[], bool], *, timeout: float, interval: float = 0.02) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


@dataclass(kw_only=True)
class ProcessGroup:
    """Processes started together, which are killed together: at the latest when the test run ends, even by SIGKILL."""

    folder: Path
    """Where they keep everything; removed by the leash if the test run dies without cleaning up."""
    account: int | None = None
    """The user and group that they run as; None for our own."""
    _members: list[psutil.Popen] = field(default_factory=list)
    _leash: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def spawn(self, *command: str | Path, env: Mapping[str, str]) -> psutil.Popen:
        """Start one more process; what it prints goes to the log."""
        with self.log.open("ab") as log:
            process = psutil.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), **env},
                process_group=self._members[0].pid if self._members else 0,
                user=self.account,
                group=self.account,
                extra_groups=None if self.account is None else [],
            )
        self._members.append(process)
        if self._leash is None:
            self._leash = self._put_on_leash(process.pid)
        return process

    def _put_on_leash(self, group: int) -> subprocess.Popen[bytes]:
        """Have the group killed when our end of a pipe is closed, as the kernel does when we are gone.

        PR_SET_PDEATHSIG would be tied to the thread that starts the process, which is often a short-lived one.
        """
        # SIGQUIT lets PostgreSQL give its shared memory back.
        script = 'read -r _; kill -s QUIT -- "-$1"; sleep 1; kill -s KILL -- "-$1"; rm -rf -- "$2"'
        return subprocess.Popen(  # noqa: S603  (both arguments are our own)
            ["/bin/sh", "-c", script, "leash", str(group), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end(self, process: psutil.Popen, sign: signal.Signals, *, timeout: float) -> None:
        """Ask one process to end, wait for it, then kill whatever is left of the group."""
        family = self._family()  # asked before: a dead process has no children
        process.send_signal(sign)
        try:
            process.wait(timeout)
        except psutil.TimeoutExpired:
            raise ServerError(f"{process.args} did not end within {timeout} s of {sign.name}\n{self.tail()}") from None
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
        if self._leash is not None:
            self._leash.kill()
            self._leash.communicate()
            self._leash = None

    def tail(self) -> str:
        """The end of the log, for an error's message."""
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
    """A zombie is dead: who reaps an orphan is the init process's affair, and some containers' never does."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
