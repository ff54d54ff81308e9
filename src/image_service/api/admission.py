"""How many uploads are taken in at once, and what a client may call one of them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.requests import Request

from image_service.errors import InvalidIdempotencyKey, TooManyUploads

KEY_HEADER: Final = "Idempotency-Key"

_KEY: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?", re.ASCII)


class Admission:
    """Counts the uploads that are being taken in, each of which holds a buffer, a file and perhaps a connection."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Be one of them for as long as the block takes.

        Raises:
            TooManyUploads: there are enough already.
        """
        if self._inside >= self._limit:
            raise TooManyUploads
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


def idempotency_key_of(request: Request) -> str | None:
    """What the client tells a repeated upload by (draft-ietf-httpapi-idempotency-key-header); None if it does not.

    The draft wants a quoted string; most clients send a bare one, which here means the same.

    Raises:
        InvalidIdempotencyKey: it is nothing that could be kept.
    """
    given = request.headers.getlist(KEY_HEADER)
    if not given:
        return None
    if len(given) > 1:
        raise InvalidIdempotencyKey("The request has more than one Idempotency-Key. Send one.")
    key = given[0].strip(" \t")
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey
    return key
