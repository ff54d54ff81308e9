"""Reads the log of events again: for those who have missed some of them."""

from collections.abc import Collection, Sequence
from uuid import UUID

from image_service.database import Database
from image_service.domain.event import Event, EventType, Position, event_id, position_of


class EventLog:
    """Reads recorded events.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._identity: UUID | None = None

    async def resume(self, last: str | None) -> Position | None:
        """Return the position of an event after which nothing is missing.

        Args:
            last: The id of the last event that the client has got; None: none, so that it gets all there are.

        Returns:
            None if later events may be missing, because they are purged, or because it is no event of this database.
            Then the client must be told to start again.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        if last is None:
            async with self._database.statement() as repositories:
                return await repositories.events.position("purged")
        position = position_of(last, await self._database_id())
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

    async def head(self) -> Position:
        """Return the position up to which all events are there to be read.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.statement() as repositories:
            return await repositories.events.head()

    async def id_of(self, position: Position) -> str:
        """Return the id of the event at a position, by which a client resumes after it.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        return event_id(await self._database_id(), position)

    async def _database_id(self) -> UUID:
        if self._identity is None:
            async with self._database.statement() as repositories:
                self._identity = await repositories.catalogue.identity()
        return self._identity
