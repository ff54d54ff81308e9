"""Reads the log of events again: for those who have missed some of them."""

from collections.abc import Collection, Sequence
from uuid import UUID

from image_service.database import Database
from image_service.domain.event import Event, EventType, Position, position_of


class EventLog:
    """Reads recorded events.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._identity: UUID | None = None

    async def resume(self, event_id: str | None) -> Position | None:
        """Return the position of an event after which nothing is missing.

        Args:
            event_id: The last event that the client has got; None: none, so that it gets all there are.

        Returns:
            None if later events may be missing, because they are purged, or because it is no event of this database.
            Then the client must be told to start again.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        if event_id is None:
            async with self._database.statement() as repositories:
                return await repositories.events.position("purged")
        if self._identity is None:
            async with self._database.statement() as repositories:
                self._identity = await repositories.catalogue.identity()
        position = position_of(event_id, self._identity)
        if position is None:
            return None
        async with self._database.statement() as repositories:
            return position if await repositories.events.can_resume(position) else None

    async def page(
        self,
        after: Position,
        *,
        limit: int,
        image_id: UUID | None = None,
        types: Collection[EventType] | None = None,
        until: Position | None = None,
    ) -> Sequence[Event]:
        """Return the next events after a position, in order; none if there are none yet.

        Args:
            after: From ``resume``, or of an event.
            limit: The most events to return.
            image_id: Only events of this image.
            types: Only events of these types.
            until: Only events up to this position.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.statement() as repositories:
            page = await repositories.events.after(after, limit=limit, image_id=image_id, types=types)
        return [event for event in page.events if until is None or event.position <= until]
