"""The ``Idempotency-Key`` header (draft-ietf-httpapi-idempotency-key-header)."""

import re
from typing import Final

from starlette.requests import Request

from image_service.errors import InvalidIdempotencyKey

KEY_HEADER: Final = "Idempotency-Key"

MAX_KEY: Final = 255
"""Characters of a key."""

_KEY: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?", re.ASCII)


def idempotency_key_of(request: Request) -> str | None:
    """Returns the request's idempotency key, or None where the client sent none.

    The draft requires a quoted string; most clients send the bare value, which is accepted with the same meaning.

    Raises:
        InvalidIdempotencyKey: the key is empty, too long or not printable ASCII, or there are several.
    """
    values = request.headers.getlist(KEY_HEADER)
    if not values:
        return None
    if len(values) > 1:
        raise InvalidIdempotencyKey("The request has more than one Idempotency-Key. Send one.")
    key = values[0].strip(" \t")
    if len(key) > 1 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey
    return key
