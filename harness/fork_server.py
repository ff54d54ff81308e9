"""Forks processes of the program from one that has it imported, which saves a second of processor time at each start.

    python -m harness.fork_server SOCKET [MODULE…]

A forked process is what a start of the program makes, but for its command line: it has its own environment, working
directory, output, process group and random numbers, and the interpreter ends as usual, with the program's exit status.
So that nothing else is shared, this process has run nothing of the program but imports, and has one thread.

``harness.forked`` has the client. Each order is a line on a connection of its own; the answers are the process id and,
when the process has ended, its exit status.
"""

import gc
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

PROGRAM = "image_service.__main__"
IMPORTED = (
    "image_service.cli",
    "image_service.program.standalone",
    "asyncpg",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "aiosqlite",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.httptools_impl",
)
"""Modules that the program imports lazily."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A process to start."""

    program: str
    """A module with a function ``main``."""
    arguments: list[str]
    environment: dict[str, str]
    """Beside the fork server's PYTHONPATH."""
    folder: str
    """The working directory."""
    output: str
    """The file to which its output is appended."""
    errors: str
    """The same for its error output; may be the same file."""
    group: int | None
    """The process group to join; 0 for a new one, None for the fork server's, with which it ends."""


def main() -> None:
    """Fork a process for each order; in the forked ones, run the program."""
    for module in (PROGRAM, *IMPORTED, *sys.argv[2:]):
        import_module(module)
    _check_that_nothing_is_shared()
    # A collection in a child would touch, and so copy, every object that it shares with this process.
    gc.collect()
    gc.freeze()
    order = _serve(Path(sys.argv[1]))
    _prepare(order)
    import_module(order.program).main()


def _check_that_nothing_is_shared() -> None:
    if sys.platform == "linux":
        assert len([*Path("/proc/self/task").iterdir()]) == 1, "an imported module has started a thread"
    assert tempfile.tempdir is None, "an imported module has chosen the folder of temporary files"


def _serve(path: Path) -> Order:
    """Fork processes until this one is killed. Returns in each forked process."""
    children: dict[int, socket.socket] = {}
    with _child_deaths() as deaths, socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(str(path.with_suffix(".new")))
        listener.listen(100)
        path.with_suffix(".new").rename(path)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(deaths, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is deaths:
                    deaths.recv(4096)
                    _report_ended(children)
                    continue
                connection, _address = listener.accept()
                with connection.makefile() as lines:
                    if not (line := lines.readline()):  # the client has ended
                        connection.close()
                        continue
                    order = Order(**json.loads(line))
                    if child := os.fork():
                        children[child] = connection
                        continue
                    if order.group is not None:
                        os.setpgid(0, order.group)
                    connection.sendall(f"{os.getpid()}\n".encode())
                    permitted = lines.readline()  # the client knows the process by now
                for each in (connection, *children.values()):
                    each.close()
                if not permitted:
                    os._exit(1)
                return order


@contextmanager
def _child_deaths() -> Iterator[socket.socket]:
    """A socket that becomes readable when a child has ended."""
    reader, writer = socket.socketpair()
    with reader, writer:
        os.set_blocking(writer.fileno(), False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        before = signal.signal(signal.SIGCHLD, lambda *_: None)
        yield reader
        # In a forked process:
        signal.signal(signal.SIGCHLD, before)
        signal.set_wakeup_fd(-1)


def _report_ended(children: dict[int, socket.socket]) -> None:
    with suppress(ChildProcessError):  # there is none left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with children.pop(ended[0]) as connection, suppress(ConnectionError):
                connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())


def _prepare(order: Order) -> None:
    """Make a forked process like one that was started."""
    os.chdir(order.folder)
    for path, stream in ((order.output, sys.stdout), (order.errors, sys.stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream.fileno())
        os.close(file)
    path = os.environ["PYTHONPATH"]
    os.environ.clear()
    os.environ.update({"PYTHONPATH": path, **order.environment})
    sys.argv = ["image-service", *order.arguments]
    if any(name.startswith("COVERAGE_") for name in os.environ):
        from coverage import process_startup  # noqa: PLC0415  (only where coverage is measured)

        process_startup()


if __name__ == "__main__":
    main()
