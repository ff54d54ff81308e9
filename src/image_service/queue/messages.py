"""The wire form of a delivery.

The body is JSON with a version, ``{"v":1,"image_id":"0190…"}``; the request id travels beside it as the correlation
id, where broker tools show it. A later version may add to this and never changes it, so that during a rolling restart
old and new processes read what the others write; see ``docs/decisions/0014-message-versions.md``.
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
_NOTHING: Final[Mapping[str, object]] = {}
_MAX_CORRELATION_BYTES: Final = 255  # an AMQP short string


class UndecodableMessage(Exception):
    """The body names no image, to this version of the service or to any other."""


def encode(delivery: Delivery) -> bytes:
    """The body of a delivery's message."""
    return json.dumps({"v": VERSION, "image_id": str(delivery.image_id)}, separators=(",", ":")).encode()


def correlation_id(delivery: Delivery) -> str | None:
    """The delivery's request id, cut to what AMQP can carry: a client chose it, so it may be anything."""
    if delivery.request_id is None:
        return None
    return delivery.request_id.encode(errors="ignore")[:_MAX_CORRELATION_BYTES].decode(errors="ignore")


def headers(delivery: Delivery) -> dict[str, Any]:
    """What stands beside the body for those who trace."""
    return {} if delivery.trace is None else {_TRACE: delivery.trace}


def decode(
    body: bytes, correlation_id: object = None, lane: Lane = Lane.NORMAL, beside: Mapping[str, object] = _NOTHING
) -> Delivery:
    """The delivery that a body, a correlation id and the headers beside it stand for, which came out of a lane.

    Whatever else a later version has put into the body is ignored, and so is an id or a header that is no text.

    Raises:
        UndecodableMessage: not JSON, without a version, or without an image id. Another try would end the same.
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
    trace = beside.get(_TRACE)
    return Delivery(
        image_id=image_id, lane=lane, request_id=request_id, trace=trace if isinstance(trace, str) else None
    )
