"""Says why a dependency is unavailable: in one line, for logs and operators, without secrets."""

import errno
import re
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import structlog

_LONGEST: Final = 300
"""Characters of a cause."""
_REPEATED_AFTER: Final = 60.0
"""Seconds after which the same cause is logged again."""
_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s/@]*@")

_log = structlog.get_logger(__name__)


class OutageLog:
    """Logs the causes of one dependency's outages: each kind of cause at once, and again every minute while it lasts.

    Args:
        event: The event of the log lines.
        address: Where the dependency is, without credentials.
        clock: Returns the time in seconds.
    """

    def __init__(self, event: str, address: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._address = address
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        """When each kind of cause was last logged. There are few: their texts, such as paths, differ without end."""

    def note(self, error: BaseException) -> str:
        """Returns the cause of an outage, after it was logged unless one of its kind was a moment ago."""
        cause = cause_of(error)
        return self.note_cause(kind_of(error), f"{cause} (at {self._address})" if self._address else cause)

    def note_cause(self, kind: str, cause: str) -> str:
        """The same for a cause that is known already."""
        now = self._clock()
        if now - self._logged_at.get(kind, float("-inf")) >= _REPEATED_AFTER:
            self._logged_at[kind] = now
            _log.warning(self._event, reason=cause)
        return cause


def cause_of(error: BaseException) -> str:
    """Returns an error in one line: ``PermissionError EACCES: Permission denied: /data/originals``."""
    message = one_line(_message(error))
    return f"{kind_of(error)}: {message}" if message else kind_of(error)


def kind_of(error: BaseException) -> str:
    """Returns an error's class with its errno or SQLSTATE."""
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None) or _errno_name(error)
    return f"{type(error).__name__} {code}" if code else type(error).__name__


def one_line(text: str) -> str:
    """Returns a text of bounded length without control characters and without the credentials of URLs."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text.strip()[: 2 * _LONGEST])
    shown = _CREDENTIALS.sub("", shown)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def address_of(url: str) -> str:
    """Returns host, port and path of a URL; nothing of one that is malformed, as any part of it may be a secret."""
    if "://" not in url:
        return ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    return one_line(f"{parts.hostname or ''}{f':{port}' if port else ''}{parts.path}")


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([error.strerror, *([" -> ".join(names)] if names else [])])
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    return str(error)


def _errno_name(error: BaseException) -> str | None:
    # OpenSSL and the resolver have numbers of their own.
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError) or error.errno is None:
        return None
    return errno.errorcode.get(error.errno)
