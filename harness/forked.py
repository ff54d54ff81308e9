"""Processes that a fork server has forked; see ``harness.fork_server``."""

import json
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

import psutil

from harness.fork_server import Order

RUN_LIMIT = 300.0
"""Seconds."""
_ANSWER_LIMIT = 16
"""Bytes: more than a process id or an exit status has."""


class ForkedProcess(psutil.Process):
    """Like ``psutil.Popen``, but a child of the fork server, from which its exit status arrives on a connection."""

    def __init__(self, pid: int, connection: socket.socket, args: tuple[str, ...]) -> None:
        super().__init__(pid)
        self.args = args
        self.returncode: int | None = None
        """The exit status, or the negative number of the signal that ended it; None as long as none has arrived."""
        self._connection = connection

    def poll(self) -> int | None:
        """Return the exit status if the process has ended."""
        return self._receive(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process has ended; return its exit status.

        Raises:
            psutil.TimeoutExpired: it still runs.
        """
        if (status := self._receive(timeout)) is None:
            raise psutil.TimeoutExpired(timeout or 0, pid=self.pid)
        return status

    def _receive(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                answer = self._connection.recv(_ANSWER_LIMIT)
            except (BlockingIOError, TimeoutError):
                return None
            # Without an answer the fork server has been killed, and this process with it.
            self.returncode = int(answer or -signal.SIGKILL)
            self._connection.close()
        return self.returncode


def fork(server: str, order: Order) -> ForkedProcess:
    """Have the fork server with that socket start a process."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(server)
        connection.sendall(json.dumps(asdict(order)).encode() + b"\n")
        pid = int(connection.recv(_ANSWER_LIMIT))
        process = ForkedProcess(pid, connection, (order.program, *order.arguments))
        connection.sendall(b"\n")  # the process waits for this: now its end is noticed
    except BaseException:
        connection.close()
        raise
    return process


def run(
    server: str, program: str, *arguments: str | Path, folder: Path, environment: Mapping[str, str]
) -> CompletedProcess[str]:
    """Have the fork server run a program to its end, like ``subprocess.run``."""
    with TemporaryDirectory() as outputs:
        output, errors = Path(outputs, "output"), Path(outputs, "errors")
        order = Order(
            program=program,
            arguments=[str(argument) for argument in arguments],
            environment=dict(environment),
            folder=str(folder),
            output=str(output),
            errors=str(errors),
            group=None,
        )
        process = fork(server, order)
        try:
            status = process.wait(RUN_LIMIT)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return CompletedProcess(process.args, status, output.read_text(), errors.read_text())
