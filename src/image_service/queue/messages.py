"""Encodes and decodes deliveries as queue messages.

The body is JSON with a version, ``{"v":1,"image_id":"0190…"}``; the request id is the correlation id, which broker
tools show. A later version may add to this and never changes it, so that during a rolling restart old and new processes
read each other's messages; see ``docs/decisions/0014-message-versions.md``.
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from image_service.domain.lane import Lane
from image_service.ports import Delivery

VERSION: Final = 1

_TRACE: Final = "traceparent"
"""The header's name in W3C Trace Context."""
_NO_HEADERS: Final[Mapping[str, object]] = {}
_MAX_CORRELATION_BYTES: Final = 255  # an AMQP short string


class UndecodableMessage(Exception):
    """The body names no image; no version of the service can decode it."""


def encode(delivery: Delivery) -> bytes:
    """Returns the body of a delivery's message."""
    return json.dumps({"v": VERSION, "image_id": str(delivery.image_id)}, separators=(",", ":")).encode()


def correlation_id(delivery: Delivery) -> str | None:
    """Returns the delivery's request id, which clients choose, cut to the length that AMQP allows."""
    if delivery.request_id is None:
        return None
    return delivery.request_id.encode(errors="ignore")[:_MAX_CORRELATION_BYTES].decode(errors="ignore")


def headers(delivery: Delivery) -> dict[str, Any]:
    """Returns the headers of a delivery's message: its trace, if there is one."""
    return {} if delivery.trace is None else {_TRACE: delivery.trace}


def decode(
    body: bytes, correlation_id: object = None, lane: Lane = Lane.NORMAL, headers: Mapping[str, object] = _NO_HEADERS
) -> Delivery:
    """Returns the delivery for a message from a lane.

    Fields that a later version adds to the body are ignored, and so is an id or a header that is no text.

    Raises:
        UndecodableMessage: not JSON, no version, or no image id.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage("the body is not JSON") from error
    if not isinstance(content, dict):
        raise UndecodableMessage("the body is not a JSON object")
    version = content.get("v")
    if type(version) is not int or version < 1:
        raise UndecodableMessage(f"{str(version)[:20]!r} is no version")
    try:
        image_id = UUID(content["image_id"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UndecodableMessage("the image id is missing or malformed") from error
    request_id = correlation_id if isinstance(correlation_id, str) else None
    trace = headers.get(_TRACE)
    return Delivery(
        image_id=image_id, lane=lane, request_id=request_id, trace=trace if isinstance(trace, str) else None
    )
