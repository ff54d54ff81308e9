"""A database whose server becomes read-only, as after a failover to a standby."""

from sqlalchemy import text

from harness.rows import execute
from image_service.database import Database


async def make_read_only(operator: Database, *, read_only: bool = True) -> None:
    """Make the sessions that begin from now on read-only or not, as a managed database does whose disk is full.

    Args:
        operator: Has open connections to the database, which stay as they are.
        read_only: Whether the new sessions are.
    """
    switch = "on" if read_only else "off"
    alter = f"ALTER DATABASE %I SET default_transaction_read_only = {switch}"
    await execute(operator, text(f"DO $$ BEGIN EXECUTE format('{alter}', current_database()); END $$"))


async def end_sessions(operator: Database) -> None:
    """End all sessions of the database but the operator's own, and wait until they have ended."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await execute(operator, text(f"SELECT pg_terminate_backend(pid, 60000) {others}"))
