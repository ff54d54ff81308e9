"""What is logged, by us or by a library, comes out of stdout as one line in one form."""

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
from image_service.observability.logging import configure_logging

ID = UUID("01900000-0000-7000-8000-000000000001")
CHATTY = ["aio_pika", "aiormq", "aiosqlite", "asyncio", "multipart", "uvicorn.access", "uvicorn.error", "alembic"]


@pytest.fixture(autouse=True)
def keep_logging_as_it_was() -> Iterator[None]:
    with logging_kept():
        yield


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.splitlines()]


def test_a_line_is_json_with_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_line_carries_the_request_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    with bound_contextvars(request_id="r-1"):
        structlog.get_logger("ours").info("inside")
        logging.getLogger("library").info("inside")
    structlog.get_logger("ours").info("outside")
    assert [line.get("request_id") for line in lines(capsys)] == ["r-1", "r-1", None]


def test_what_a_library_logs_looks_like_ours(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    logging.getLogger("some.library").warning("%d of %s", 2, "them", extra={"host": "db"})
    (line,) = lines(capsys)
    assert "timestamp" in line
    del line["timestamp"]
    assert line == {"event": "2 of them", "level": "warning", "logger": "some.library", "host": "db"}


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_nothing_below_the_level_is_logged(capsys: pytest.CaptureFixture[str], level: str) -> None:
    configure_logging(level, "json")
    names = ["debug", "info", "warning", "error", "critical"]
    for name in names:
        getattr(structlog.get_logger("ours"), name)("event")
        getattr(logging.getLogger("library"), name)("event")
    expected = names[names.index(level.lower()) :]
    logged = [(line["logger"], line["level"]) for line in lines(capsys)]
    assert logged == [(logger, name) for name in expected for logger in ("ours", "library")]


def test_a_logger_made_before_the_configuration_obeys_it(capsys: pytest.CaptureFixture[str]) -> None:
    early = structlog.get_logger("early")
    configure_logging("WARNING", "json")
    early.info("not this")
    early.warning("this")
    assert [line["event"] for line in lines(capsys)] == ["this"]


@pytest.mark.parametrize("name", CHATTY)
@pytest.mark.parametrize(("level", "expected"), [("DEBUG", ["warning"]), ("INFO", ["warning"]), ("ERROR", [])])
def test_chatty_libraries_are_heard_from_warnings_on(
    capsys: pytest.CaptureFixture[str], name: str, level: str, expected: list[str]
) -> None:
    configure_logging(level, "json")
    logging.getLogger(name).info("connected")
    logging.getLogger(name).warning("lost")
    assert [line["level"] for line in lines(capsys)] == expected


def test_configuring_twice_does_not_log_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("DEBUG", "console")
    configure_logging("INFO", "json")
    structlog.get_logger("ours").info("once")
    assert [line["event"] for line in lines(capsys)] == ["once"]


def fail(password: str) -> None:
    raise RuntimeError(f"a failure with {len(password)} characters")


@pytest.mark.parametrize("logger", ["ours", "library"])
def test_an_exception_is_part_of_its_line_and_shows_no_variables(
    capsys: pytest.CaptureFixture[str], logger: str
) -> None:
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


def test_on_the_console_a_line_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_on_the_console_an_exception_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
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
def test_auto_writes_for_people_on_a_terminal_and_json_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    configure_logging("INFO", "auto")
    structlog.get_logger("ours").info("event")
    output = capsys.readouterr().out
    assert output.startswith("{") != terminal
    assert "event" in output
