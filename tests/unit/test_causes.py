"""What operators read about the cause of an outage: one line, without secrets, and not with every request."""

import errno
import os
import socket
import sqlite3
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from image_service.causes import OutageLog, address_of, cause_of, one_line
from image_service.errors import StorageUnavailable


def test_cause_has_class_code_message_and_paths() -> None:
    causes = {
        "PermissionError EACCES: Permission denied: /data/originals": PermissionError(
            errno.EACCES, "Permission denied", "/data/originals"
        ),
        "OSError EXDEV: Invalid cross-device link: /a -> /b": OSError(
            errno.EXDEV, os.strerror(errno.EXDEV), "/a", None, "/b"
        ),
        "gaierror: Name or service not known": socket.gaierror(-2, "Name or service not known"),
        "SSLError: [SSL: WRONG_VERSION_NUMBER] wrong": ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"),
        "TimeoutError: no answer in time": TimeoutError(),
        "RuntimeError": RuntimeError(),
    }
    assert {cause_of(error) for error in causes.values()} == set(causes)


def test_cause_of_sqlite_has_its_code(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error) as caught:
        sqlite3.connect(f"file:{tmp_path}/missing?mode=ro", uri=True)
    assert cause_of(caught.value) == "OperationalError SQLITE_CANTOPEN: unable to open database file"


def test_text_is_one_bounded_line_without_credentials() -> None:
    assert one_line("no vhost\n at amqp://app:secret@broker/x\x1b[31m") == "no vhost\\n at amqp://broker/x\\x1b[31m"
    assert len(one_line("x" * 10_000)) == 301


def test_address_has_no_credentials() -> None:
    assert address_of("postgresql+asyncpg://app:secret@db:5432/images?ssl=require") == "db:5432/images"
    assert address_of("amqp://app:secret@broker/") == "broker/"
    assert address_of("sqlite+aiosqlite:////data/images.db") == "//data/images.db"
    assert address_of("amqp://app:secret@broker:port/") == ""
    assert address_of("not a url secret") == ""


def test_each_kind_of_cause_is_logged_at_once_and_then_every_minute() -> None:
    now = 1000.0
    log = OutageLog("storage unavailable", "nfs", clock=lambda: now)
    refused = [PermissionError(errno.EACCES, "Permission denied", f"/data/{number}") for number in range(3)]
    with capture_logs() as lines:
        causes = [log.note(error) for error in refused]
        log.note(OSError(errno.EROFS, "Read-only file system"))
        now += 61
        log.note(refused[0])
    assert causes[2] == "PermissionError EACCES: Permission denied: /data/2 (at nfs)", "each caller gets its own"
    kinds = [line["reason"].partition(":")[0] for line in lines]
    assert kinds == ["PermissionError EACCES", "OSError EROFS", "PermissionError EACCES"]


def test_operators_read_the_cause_and_clients_only_the_detail() -> None:
    outage = StorageUnavailable(cause="OSError EIO: /data")
    assert str(outage) == f"{StorageUnavailable.__doc__} Cause: OSError EIO: /data"
    assert outage.detail == StorageUnavailable.__doc__
    assert str(StorageUnavailable()) == StorageUnavailable.__doc__
