"""The program among others: output that nothing reads, signals, a container's first process, a read-only file."""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from harness.processes import SOURCE, free_port, wait_until
from harness.service import PROGRAM, START_LIMIT, STOP_LIMIT, client

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "LOG_FORMAT": "json"}


@contextmanager
def running(*command: str | Path, output: int) -> Iterator[psutil.Popen]:
    process = psutil.Popen(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        for each in [*process.children(recursive=True), process] if process.is_running() else []:
            each.kill()
        process.wait()


async def test_requests_go_on_while_nothing_reads_the_output_and_sighup_stops_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    port = str(free_port())
    command = (*PROGRAM, "standalone", "--port", port, "--data", tmp_path / "data")
    with running(*command, output=writer) as process, open(reader, encoding="utf-8", closefd=True) as output:  # noqa: ASYNC230, PTH123  (a pipe)
        os.close(writer)
        assert any("Upload an image" in line for line in output)
        async with client(f"http://127.0.0.1:{port}") as api:
            for _ in range(60):  # the pipe holds the lines of twenty
                assert (await api.get("/images")).status_code == 200
        process.send_signal(signal.SIGHUP)
        log = output.read()
        assert wait_until(lambda: process.poll() is not None, timeout=STOP_LIMIT)
    assert process.returncode == 0
    assert log.count('"event": "request"') == 60
    assert "worker stopped" in log


def test_sigterm_ends_the_first_process_of_a_container_while_it_starts(tmp_path: Path) -> None:
    """Needs user namespaces unless it runs as root; see ``harness.service``."""
    as_root: tuple[str, ...] = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = (*PROGRAM, "standalone", "--port", "0", "--data", tmp_path / "data")
    with (
        (tmp_path / "output").open("w") as output,
        running("unshare", *as_root, "--pid", "--fork", "--kill-child", *command, output=output.fileno()) as unshare,
    ):
        if not wait_until(lambda: any(map(_handles_sigterm, _children(unshare))), timeout=START_LIMIT):
            pytest.fail(f"no process namespace can be made:\n{(tmp_path / 'output').read_text()}")
        unshare.children()[0].send_signal(signal.SIGTERM)
        assert unshare.wait(STOP_LIMIT) == 128 + signal.SIGTERM
    assert not (tmp_path / "data").exists(), "it had started already"


def test_a_read_only_database_is_one_sentence_at_the_start(sqlite_template: Path, tmp_path: Path) -> None:
    """Needs user namespaces unless it runs as root; see ``harness.service``."""
    data = tmp_path / "data"
    data.mkdir()
    database = Path(shutil.copy(sqlite_template, data / "images.db"))
    as_root: tuple[str, ...] = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    command = (*PROGRAM, "standalone", "--port", "0", "--data", data)
    ended = subprocess.run(  # noqa: S603  (a constant command)
        ["unshare", "--mount", *as_root, "sh", "-c", read_only, database, *command],  # noqa: S607
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended
    assert ended.stderr.startswith(f"image-service: The database file {database} is read-only. ")


def _children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children()
    except psutil.NoSuchProcess:
        return []
    return children


def _handles_sigterm(process: psutil.Process) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << signal.SIGTERM - 1)
