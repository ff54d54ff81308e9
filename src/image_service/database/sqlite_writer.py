"""Writes to SQLite: one thread owns the writing connection, and commits all units of work that wait in one go.

SQLite lets one transaction write at a time, and each COMMIT waits for the disk. While one does, others arrive; they are
run one after another, each in a savepoint, and share the next COMMIT.
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, Final

from sqlalchemy import Connection, Engine

from image_service.database.queries import Query

_MOST: Final = 64
"""Units in a group."""
_LONGEST: Final = 0.05
"""Seconds after which a group takes no further unit: those before it wait for their COMMIT."""


class GroupError(OSError):
    """A group of units did not take effect. Its cause is the driver's error, which is none of these units' fault."""


class Unit(ABC):
    """What takes effect as a whole or not at all; others may share its COMMIT."""

    begins_group = False
    """Whether units before it must not wait for it with their COMMIT."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        """Done once the unit has taken effect, or has certainly not, or its COMMIT has failed."""
        self.committing = False
        """Whether its COMMIT has begun, so that after an error it may have taken effect."""
        self.error: Exception | None = None
        self._decided = threading.Lock()

    @abstractmethod
    def work(self, connection: Connection) -> None:
        """Make the changes, in the writer's thread."""

    def decide(self) -> bool:
        """Decide whether the unit is kept; false if that is decided already.

        The writer decides that it is, when its work is done; its caller that it is not, when it gives up before that.
        """
        return self._decided.acquire(blocking=False)

    @property
    def withdrawn(self) -> bool:
        """Whether its caller has given up; known only before its work is done."""
        return self._decided.locked()

    async def outcome(self, time_limit: float | None = None) -> None:
        """Return once the unit has taken effect.

        A caller that is cancelled withdraws the unit; if it is too late for that, the unit ends with its group.

        Args:
            time_limit: Seconds for the work to be done. A COMMIT that has begun is waited for: it always ends.

        Raises:
            TimeoutError: the unit has no effect.
            GroupError: its group has not taken effect, or that is unknown because its COMMIT failed.
            Exception: the unit's own; it has no effect.
        """
        timer = None if time_limit is None else self.loop.call_later(time_limit, self._expire)
        try:
            await self.ended
        finally:
            self.decide()
            if timer is not None:
                timer.cancel()

    def end(self) -> None:
        """Tell the caller, in the event loop."""
        if self.ended.done():
            return
        if self.error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(self.error)

    def _expire(self) -> None:
        if self.decide() and not self.ended.done():
            self.ended.set_exception(TimeoutError())


class QueryUnit(Unit):
    """A single query."""

    def __init__(self, query: Query[Any]) -> None:
        super().__init__()
        self.query = query
        self._context = copy_context()

    def work(self, connection: Connection) -> None:
        """Run the query."""
        self._context.run(self.query.run, connection)


class Session(Unit):
    """A transaction whose queries come one at a time from the event loop. Meanwhile the writer does nothing else."""

    begins_group = True

    def __init__(self) -> None:
        super().__init__()
        self._steps: SimpleQueue[QueryUnit | None] = SimpleQueue()

    async def run(self, query: Query[Any]) -> None:
        """Run a query."""
        step = QueryUnit(query)
        self._steps.put(step)
        await step.outcome()

    async def commit(self) -> None:
        """Return once the transaction has taken effect."""
        self._steps.put(None)
        await self.outcome()

    def roll_back(self) -> None:
        """Undo it, soon. Until then no one sees it."""
        self.decide()
        self.ended.cancel()
        self._steps.put(None)

    def work(self, connection: Connection) -> None:
        """Run the queries until the transaction is to end."""
        lost: Exception | None = None
        while (step := self._steps.get()) is not None:
            if lost is None:
                try:
                    step.work(connection)
                except Exception as error:  # noqa: BLE001 — it is the query's
                    step.error = error
                    lost = None if _in_transaction(connection) else error
            else:
                step.error = lost  # outside of a transaction, it would be committed at once
            _tell([step])
        if lost is not None:
            raise lost


class Writer:
    """The thread, and its queue: first come, first served.

    Args:
        engine: Opens the connection. Its driver must begin no transactions by itself.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._units: SimpleQueue[Unit | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.busy = False

    @property
    def resting(self) -> bool:
        """Whether the connection is open and does nothing."""
        return self._connection is not None and not self.busy

    def submit(self, unit: Unit) -> None:
        """Let the unit take effect after all those before it."""
        if self._thread is None:
            self._units = SimpleQueue()
            self._thread = threading.Thread(target=self._serve, args=(self._units,), name="writer", daemon=True)
            self._thread.start()
        self._units.put(unit)

    async def close(self) -> None:
        """Close the connection, after all units that were submitted before."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._units.put(None)
            await asyncio.to_thread(thread.join)

    def _serve(self, arriving: SimpleQueue[Unit | None]) -> None:
        is_open = True
        while is_open:
            waiting = deque([arriving.get()])
            with suppress(Empty):
                while True:
                    waiting.append(arriving.get_nowait())
            is_open = None not in waiting
            units = deque(unit for unit in waiting if unit is not None)
            self.busy = True
            while units:
                self._serve_some(units)
            self.busy = False
        self._disconnect()

    def _serve_some(self, units: deque[Unit]) -> None:
        """Commit a group of the first of these units."""
        taken: list[Unit] = []
        kept: list[Unit] = []
        try:
            connection = self._begin()
        except Exception as error:  # noqa: BLE001 — it is that of all who wait
            taken, kept = [*units], [*units]
            units.clear()
            self._fail(kept, error)
        else:
            try:
                until = time.monotonic() + _LONGEST
                while units and (not taken or _may_join(units[0], len(taken), until)):
                    taken.append(units.popleft())
                    if self._keeps(connection, taken[-1]):
                        kept.append(taken[-1])
                self._commit(connection, kept)
            except Exception as error:  # noqa: BLE001 — it is that of the whole group
                self._fail(kept, error)
        _tell(taken)

    def _begin(self) -> Connection:
        """Begin a transaction, as soon as no other process writes."""
        if self._connection is None:
            self._connection = self._engine.connect()
        self._connection.begin()
        self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        return self._connection

    @staticmethod
    def _keeps(connection: Connection, unit: Unit) -> bool:
        """Do the unit's work, or none of it; returns whether it is to be committed.

        Raises:
            Exception: the unit's own, which has ended the whole transaction.
        """
        if unit.withdrawn:
            return False
        connection.exec_driver_sql("SAVEPOINT unit")
        try:
            unit.work(connection)
        except Exception as error:
            unit.error = error
            if not _in_transaction(connection):
                raise
        kept = unit.error is None and unit.decide()
        if not kept:
            connection.exec_driver_sql("ROLLBACK TO unit")
        connection.exec_driver_sql("RELEASE unit")
        return kept

    @staticmethod
    def _commit(connection: Connection, units: Sequence[Unit]) -> None:
        """Commit a group. No caller has an answer before that."""
        for unit in units:
            unit.committing = True
        connection.commit()

    def _fail(self, units: Sequence[Unit], error: Exception) -> None:
        """Undo the group, and use a new connection for the next."""
        for unit in units:
            unit.error = GroupError(str(getattr(error, "orig", None) or error))
            unit.error.__cause__ = getattr(error, "orig", None) or error
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # closes it, and SQLite rolls back what is not committed
            connection.close()


def _may_join(unit: Unit, taken: int, until: float) -> bool:
    return not unit.begins_group and taken < _MOST and time.monotonic() < until


def _in_transaction(connection: Connection) -> bool:
    """Whether there still is one: after some errors, as of a full disk, SQLite has rolled it back."""
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.in_transaction)


def _tell(units: Sequence[Unit]) -> None:
    """Tell the callers of units, waking their event loop once."""

    def end() -> None:
        for unit in units:
            unit.end()

    with suppress(RuntimeError):  # the event loop is closed: no one waits
        units[0].loop.call_soon_threadsafe(end)
