"""Forks processes of the instrumented program from one that has everything imported, which saves a second each.

with ForkServer() as fork_server:
    process = fork_server.fork(folder, ["worker"], env)
"""

import gc
import json
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import psutil

from harness.processes import ProcessGroup, ServerError, wait_until
from harness.servers import new_folder

PROJECT = Path(__file__).parents[2]
LATE = (
    "image_service.program.standalone",
    "asyncpg",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "uvicorn.protocols.http.httptools_impl",
)
"""Modules that the program imports lazily."""
_START_LIMIT = 30.0


class ForkServer:
    """Forks processes that run the source of this project or of a copy; they end with the fork server at the latest."""

    def __init__(self, project: Path = PROJECT) -> None:
        self._path = f"{project / 'src'}:{PROJECT}"
        self._group = ProcessGroup(folder=new_folder())
        self._socket = self._group.folder / "socket"

    def __enter__(self) -> Self:
        command = (sys.executable, "-m", "tests.faults.fork_server", self._socket)
        process = self._group.spawn(*command, env={"PYTHONPATH": self._path})
        ready = wait_until(lambda: self._socket.exists() or process.poll() is not None, timeout=_START_LIMIT)
        if not ready or process.poll() is not None:
            log = self._group.tail()
            self.__exit__(None, None, None)
            raise ServerError(f"the instrumented program cannot be imported\n{log}")
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._group.kill()
        shutil.rmtree(self._group.folder)

    def fork(self, folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> psutil.Process:
        """Start a process that runs the command in the folder; its output goes to ``server.log`` there."""
        folder.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": self._path, "TMPDIR": str(folder), **env}
        order = {"folder": str(folder), "arguments": [*arguments], "env": environment}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(json.dumps(order).encode() + b"\n")
            with connection.makefile() as answer:
                return psutil.Process(int(answer.readline()))


def main() -> NoReturn:
    """Accept requests and fork a process for each."""
    from tests.faults import instrumented  # noqa: PLC0415  (only the server process needs it)

    for module in LATE:
        import_module(module)
    # A collection in a child would touch, and so copy, every object that it shares with this process.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    path = Path(sys.argv[1])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path.with_suffix(".new")))
        listener.listen()
        path.with_suffix(".new").rename(path)
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile() as orders:
                order = json.loads(orders.readline())
                if (child := os.fork()) == 0:
                    for inherited in (orders, connection, listener):
                        inherited.close()
                    _run_child(order, instrumented.main)
                connection.sendall(f"{child}\n".encode())


def _run_child(order: Mapping[str, Any], program: Callable[[], None]) -> NoReturn:
    """Run the program in the forked process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(order["folder"])
    log = os.open("server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = ["image-service", *order["arguments"]]
    status = 0
    try:
        program()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # noqa: BLE001  (nothing may propagate into the fork server's code)
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
