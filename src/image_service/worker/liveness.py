"""How a worker, which serves no port, tells others that it can do its job."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

INTERVAL: Final = 5.0
"""Seconds between two signs of life."""
_STALE: Final = 3 * INTERVAL


class LivenessFile:
    """A file that a worker touches while it runs and everything that it needs answers.

    Args:
        path: The file.
        all_well: Whether everything answers.
    """

    def __init__(self, path: Path, all_well: Callable[[], Awaitable[bool]]) -> None:
        self._path = path
        self._all_well = all_well

    async def refresh(self) -> None:
        """Touch the file if all is well; else let it grow old."""
        if await self._all_well():
            self._path.touch()

    def remove(self) -> None:
        """Tell that the worker has ended."""
        self._path.unlink(missing_ok=True)


def is_fresh(path: Path) -> bool:
    """Whether a worker has touched the file lately."""
    try:
        return time.time() - path.stat().st_mtime < _STALE
    except FileNotFoundError:
        return False
