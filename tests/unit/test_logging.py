"""Log lines of the service and of libraries go to stdout in one format."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from harness.logs import logging_kept
from image_service.observability import logging as service_logging
from image_service.observability.logging import configure_logging
from image_service.observability.tracebacks import TracebackLimit

ID = UUID("01900000-0000-7000-8000-000000000001")
CHATTY = ["aio_pika", "aiormq", "aiosqlite", "asyncio", "multipart", "uvicorn.access", "uvicorn.error", "alembic"]


@pytest.fixture(autouse=True)
def preserve_logging() -> Iterator[None]:
    with logging_kept():
        yield


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.splitlines()]


def test_line_is_json_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    structlog.get_logger("image_service.test").info("image.claimed", attempt=1, image_id=ID, note="späť\nnext line")
    (line,) = lines(capsys)
    time = datetime.fromisoformat(line.pop("timestamp"))
    assert time.tzinfo is not None
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
    assert str(ID) in line.pop("image_id")
    assert line == {
        "event": "image.claimed",
        "level": "info",
        "logger": "image_service.test",
        "attempt": 1,
        "note": "späť\nnext line",
    }


def test_long_values_are_cut_and_tracebacks_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    structlog.get_logger("ours").info("a" * 501, path="/" + "b" * 5000, short="c" * 500)
    logging.getLogger("library").info("d" * 8_000_000, extra={"client": "e" * 501})
    structlog.get_logger("ours").error("failed", exc_info=ValueError("f" * 600))
    ours, library, failed = lines(capsys)
    assert ours["event"] == "a" * 500 + "… (501 characters)"
    assert ours["path"] == "/" + "b" * 499 + "… (5001 characters)"
    assert ours["short"] == "c" * 500
    assert library["event"] == "d" * 500 + "… (8000000 characters)"
    assert library["client"] == "e" * 500 + "… (501 characters)"
    assert failed["exception"][0]["exc_value"] == "f" * 600


def test_line_has_the_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    with bound_contextvars(request_id="r-1"):
        structlog.get_logger("ours").info("inside")
        logging.getLogger("library").info("inside")
    structlog.get_logger("ours").info("outside")
    assert [line.get("request_id") for line in lines(capsys)] == ["r-1", "r-1", None]


def test_library_line_has_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    logging.getLogger("some.library").warning("%d of %s", 2, "them", extra={"host": "db"})
    (line,) = lines(capsys)
    assert "timestamp" in line
    del line["timestamp"]
    assert line == {"event": "2 of them", "level": "warning", "logger": "some.library", "host": "db"}


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_lines_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str], level: str) -> None:
    configure_logging(level, "json")
    names = ["debug", "info", "warning", "error", "critical"]
    for name in names:
        getattr(structlog.get_logger("ours"), name)("event")
        getattr(logging.getLogger("library"), name)("event")
    expected = names[names.index(level.lower()) :]
    logged = [(line["logger"], line["level"]) for line in lines(capsys)]
    assert logged == [(logger, name) for name in expected for logger in ("ours", "library")]


def test_configuration_applies_to_existing_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    early = structlog.get_logger("early")
    configure_logging("WARNING", "json")
    early.info("not this")
    early.warning("this")
    assert [line["event"] for line in lines(capsys)] == ["this"]


@pytest.mark.parametrize("name", CHATTY)
@pytest.mark.parametrize(("level", "expected"), [("DEBUG", ["warning"]), ("INFO", ["warning"]), ("ERROR", [])])
def test_chatty_libraries_log_warnings_only(
    capsys: pytest.CaptureFixture[str], name: str, level: str, expected: list[str]
) -> None:
    configure_logging(level, "json")
    logging.getLogger(name).info("connected")
    logging.getLogger(name).warning("lost")
    assert [line["level"] for line in lines(capsys)] == expected


def test_configuring_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("DEBUG", "console")
    configure_logging("INFO", "json")
    structlog.get_logger("ours").info("once")
    assert [line["event"] for line in lines(capsys)] == ["once"]


def fail(password: str) -> None:
    raise RuntimeError(f"a failure with {len(password)} characters")


@pytest.mark.parametrize("logger", ["ours", "library"])
def test_exception_is_logged_without_variables(capsys: pytest.CaptureFixture[str], logger: str) -> None:
    configure_logging("INFO", "json")
    try:
        fail(password="s3" + "cret")
    except RuntimeError:
        if logger == "ours":
            structlog.get_logger("ours").exception("broken")
        else:
            logging.getLogger("library").exception("broken")
    output = capsys.readouterr().out
    line = json.loads(output)
    assert (line["event"], line["level"]) == ("broken", "error")
    assert line["exception"][0]["exc_type"] == "RuntimeError"
    assert line["exception"][0]["exc_value"] == "a failure with 6 characters"
    assert line["exception"][0]["frames"][-1]["name"] == "fail"
    assert "s3cret" not in output


def test_console_line_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "console")
    with bound_contextvars(request_id="r-1"):
        structlog.get_logger("ours").info("image.claimed", attempt=1)
        logging.getLogger("library").warning("lost %s", "connection")
    ours, theirs = capsys.readouterr().out.splitlines()
    for line, facts in (
        (ours, ["info", "image.claimed", "ours", "attempt=1", "request_id=r-1"]),
        (theirs, ["warning", "lost connection", "library", "request_id=r-1"]),
    ):
        assert not line.startswith("{")
        assert "\x1b" not in line
        assert all(fact in line for fact in facts)


def test_console_exception_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "console")
    try:
        fail(password="s3" + "cret")
    except RuntimeError:
        structlog.get_logger("ours").exception("broken")
    output = capsys.readouterr().out
    assert "broken" in output.splitlines()[0]
    assert "RuntimeError: a failure with 6 characters" in output
    assert "s3cret" not in output


@pytest.mark.parametrize("terminal", [True, False])
def test_auto_format_depends_on_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    configure_logging("INFO", "auto")
    structlog.get_logger("ours").info("event")
    output = capsys.readouterr().out
    assert output.startswith("{") != terminal
    assert "event" in output


def test_a_repeated_traceback_is_logged_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(service_logging, "TracebackLimit", lambda: TracebackLimit(lambda: clock[0]))
    configure_logging("INFO", "json")

    def fails(event: str, logger: str) -> None:
        try:
            fail(str(clock[0]))
        except RuntimeError as error:
            if logger == "ours":
                structlog.get_logger("ours").error(event, exc_info=error)
            else:
                logging.getLogger("library").exception(event)

    for clock[0] in (0.0, 59.0, 59.5, 60.0, 61.0):
        fails("broken", "ours")
        fails("broken there", "library")
    fails("another", "ours")
    *repeated, other = lines(capsys)
    assert "exception" in other
    for same in (repeated[::2], repeated[1::2]):
        assert ["exception" in line for line in same] == [True, False, False, True, False]
        assert [line.get("repeated") for line in same] == [None, 1, 2, 2, 1]
        assert same[1]["error"] == "RuntimeError: a failure with 4 characters"


def test_many_different_tracebacks_take_bounded_memory() -> None:
    limit = TracebackLimit()
    for number in range(250):
        event = {"event": str(number), "exc_info": ValueError()}
        assert limit(None, "error", dict(event)) == event
    assert len(limit._known) <= 100
