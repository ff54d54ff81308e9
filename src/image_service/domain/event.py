"""Events: what happened to an image, for clients and services that wait for it.

An event is recorded together with the change that it tells of. Its position is where it comes in the log of all
events; its id names that position, and is the same wherever the event is sent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from image_service.domain.image import Image

MAX_METADATA: Final = 1024
"""Bytes of the metadata that an upload may give, in UTF-8."""

_ID: Final = re.compile(r"evt_([0-9a-f]{8})_([0-9]{1,19})_([0-9]{1,19})")
_LARGEST: Final = 2**63 - 1
"""That databases store."""


class EventType(StrEnum):
    """What happened."""

    ACCEPTED = "image.accepted"
    """An upload is recorded."""
    DONE = "image.done"
    """All required outputs exist."""
    FAILED = "image.failed"
    """The image ended in ERROR."""
    OUTPUT = "image.output"
    """Outputs that the image lacked, optional ones or those of a recipe that has changed, are made or left out."""
    REPROCESSING = "image.reprocessing"
    """A finished image is to be rendered again."""
    DELETED = "image.deleted"
    WEBHOOK_DISABLED = "webhook.disabled"
    """A webhook endpoint gets no events any more, because deliveries to it failed for too long or it answered 410."""
    WEBHOOK_TEST = "webhook.test"
    """Deliveries to a webhook endpoint are tested; only that endpoint gets it."""


ENDS: Final = frozenset({EventType.DONE, EventType.FAILED, EventType.DELETED})
"""Events after which it is of no use to wait for an image."""


class Position(NamedTuple):
    """Where an event comes in the log. Positions are compared part by part.

    The number alone is not the order in which events become visible: a transaction that is given a smaller number may
    commit later. No event before one that is *settled* becomes visible any more.
    """

    transaction: int
    """Of the transaction that recorded it; 0 on SQLite, where one commits at a time."""
    number: int


START: Final = Position(0, 0)
"""The position before all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event."""

    id: str
    """The same wherever it is sent: receivers recognise by it what they have had already."""
    position: Position
    type: EventType
    happened_at: datetime
    image_id: UUID | None
    """None if it is about no image."""
    image: Image | None
    """The image as the event left it; None if it is about no image."""
    facts: Mapping[str, object]
    """What it tells if it is about no image."""
    metadata: str | None = None
    """What the client gave with the upload."""
    webhook_id: UUID | None = None
    """The only endpoint that gets it; None: all that want its type."""


def event_id(database: UUID, position: Position) -> str:
    """Returns the id of the event at a position of a database's log."""
    return f"evt_{_mark(database)}_{position.transaction}_{position.number}"


def position_of(text: str, database: UUID) -> Position | None:
    """Returns the position that an event's id names; None if it is no id of an event of this database."""
    found = _ID.fullmatch(text)
    if found is None or found[1] != _mark(database):
        return None
    position = Position(int(found[2]), int(found[3]))
    return position if max(position) <= _LARGEST else None


def _mark(database: UUID) -> str:
    return database.hex[-8:]
