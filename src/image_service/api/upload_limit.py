"""Limits how many uploads are received at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager

from image_service.errors import TooManyUploads


class UploadLimit:
    """Counts the uploads in progress: each holds a buffer, a file and sometimes a database connection."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_progress = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Occupies one slot for the duration of the block.

        Raises:
            TooManyUploads: all slots are in use.
        """
        if self._in_progress >= self._limit:
            raise TooManyUploads
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1
