"""Liveness of a worker, which serves no port: a file that it touches while it can do its job."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

INTERVAL: Final = 5.0
"""Seconds between two refreshes."""
_STALE_AFTER: Final = 3 * INTERVAL


class LivenessFile:
    """A file that is touched while the worker runs and all its dependencies answer.

    Args:
        path: The file.
        is_healthy: Whether all dependencies answer.
    """

    def __init__(self, path: Path, is_healthy: Callable[[], Awaitable[bool]]) -> None:
        self._path = path
        self._is_healthy = is_healthy

    async def refresh(self) -> None:
        """Touch the file if the worker is healthy; otherwise leave it, so that it becomes stale."""
        if await self._is_healthy():
            self._path.touch()

    def remove(self) -> None:
        """Remove the file when the worker ends."""
        self._path.unlink(missing_ok=True)


def is_fresh(path: Path) -> bool:
    """Whether a worker has touched the file within three intervals."""
    try:
        return time.time() - path.stat().st_mtime < _STALE_AFTER
    except FileNotFoundError:
        return False
