"""Log lines are written by a thread: whatever the reader does, no caller waits, and what is lost is counted."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from harness.logs import logging_kept
from harness.processes import wait_until
from image_service.observability import background_stream
from image_service.observability.background_stream import BackgroundStream
from image_service.observability.logging import configure_logging

PIPE = 4096
MANY = 300
LINES = [f"{number:05} {'x' * 90}\n" for number in range(MANY)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds few lines."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    yield reader, writer
    os.close(writer)


def everything(reader: int, end: bytes) -> list[str]:
    """Read until the output contains the end; close the reader."""
    output = b""
    while end not in output:
        output += os.read(reader, PIPE)
    os.close(reader)
    return output.decode().splitlines(keepends=True)


@pytest.mark.parametrize("blocking", [True, False])
def test_all_lines_are_written_in_order_once_they_are_read(pipe: tuple[int, int], blocking: bool) -> None:  # noqa: FBT001  (a parameter)
    reader, writer = pipe
    os.set_blocking(writer, blocking)
    with BackgroundStream(writer) as stream:
        for line in LINES:
            stream.write(line)
            stream.flush()
        assert everything(reader, LINES[-1].encode()) == LINES
    assert not stream.isatty()


def test_lines_before_and_after_the_context_and_at_its_end_are_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    stream = BackgroundStream(descriptor)
    stream.write("before\n")
    with stream:
        for line in LINES:
            stream.write(line)
    stream.write("after \udcff\n")
    os.close(descriptor)
    assert log.read_text() == "".join(["before\n", *LINES, "after \\udcff\n"])


def test_lines_that_nothing_reads_are_dropped_counted_and_reported_later(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    counted: list[int] = []
    with logging_kept(), BackgroundStream(writer, most_waiting=10_000) as stream:
        stream.on_lost = counted.append
        configure_logging("INFO", "json", stream)
        for number in range(MANY):
            structlog.get_logger("ours").info("request", number=number)
        assert counted
        lines = [json.loads(line) for line in everything(reader, b"log lines lost")]
    *written, report = lines
    assert (report["level"], report["lines"]) == ("warning", sum(counted))
    assert len(written) + sum(counted) == MANY
    assert [line["number"] for line in written] == sorted(line["number"] for line in written)


def test_closing_does_not_wait_for_a_reader(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    monkeypatch.setattr(background_stream, "_CLOSE_TIMEOUT", 0.01)
    with BackgroundStream(writer) as stream:
        for line in LINES:
            stream.write(line)
    stream.write("after\n")  # does not block either
    assert stream._thread.is_alive()
    everything(reader, LINES[-1].encode())
    stream._thread.join()


def test_lines_to_a_closed_pipe_are_lost(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    counted: list[int] = []
    with BackgroundStream(writer) as stream:
        stream.on_lost = counted.append
        stream.write("lost\n")
        assert wait_until(lambda: counted == [1], timeout=10)
        stream.write("lost too\n")
    assert sum(counted) == 2
