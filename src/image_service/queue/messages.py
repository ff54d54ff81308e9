"""The wire form of a delivery.

The body is JSON with a version, ``{"v":1,"image_id":"0190…"}``; the request id travels beside it as the correlation
id, where broker tools show it.
"""

import json
from typing import Final
from uuid import UUID

from image_service.ports import Delivery

VERSION: Final = 1

_MAX_CORRELATION_BYTES: Final = 255  # an AMQP short string


class UndecodableMessage(Exception):
    """The body is no message that this version of the service understands."""


def encode(delivery: Delivery) -> bytes:
    """The body of a delivery's message."""
    return json.dumps({"v": VERSION, "image_id": str(delivery.image_id)}, separators=(",", ":")).encode()


def correlation_id(delivery: Delivery) -> str | None:
    """The delivery's request id, cut to what AMQP can carry: a client chose it, so it may be anything."""
    if delivery.request_id is None:
        return None
    return delivery.request_id.encode(errors="ignore")[:_MAX_CORRELATION_BYTES].decode(errors="ignore")


def decode(body: bytes, correlation_id: object = None) -> Delivery:
    """The delivery that a body and a correlation id stand for. A correlation id that is no text is ignored.

    Raises:
        UndecodableMessage: not JSON, of an unknown version, or without an image id. Another try would end the same.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage("the body is not JSON") from error
    if not isinstance(content, dict):
        raise UndecodableMessage("the body is not a JSON object")
    version = content.get("v")
    if type(version) is not int or version != VERSION:
        raise UndecodableMessage(f"version {str(version)[:20]!r} is unknown; this service reads version {VERSION}")
    try:
        image_id = UUID(content["image_id"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UndecodableMessage("the image id is missing or malformed") from error
    return Delivery(image_id=image_id, request_id=correlation_id if isinstance(correlation_id, str) else None)
