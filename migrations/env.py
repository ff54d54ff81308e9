"""Runs the migrations, on PostgreSQL and SQLite alike."""

import asyncio
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from image_service.config import load_settings
from image_service.database.compatibility import check_newer_schema
from image_service.models import Base
from image_service.models.base import UtcDateTime

# Any number, the same in every process: concurrent migrations wait for each other.
LOCK = 7_239_105_418


def render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Render our own types as the database's types: a migration must not change when our code does."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


url: str = context.config.attributes.get("url") or load_settings().database_url.get_secret_value()


def run(connection: Connection | None = None) -> None:
    """Run the migrations on a connection, or print their SQL without one."""
    context.configure(
        connection=connection,
        url=None if connection else url,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        render_item=render_item,
        literal_binds=connection is None,
    )
    with context.begin_transaction():
        if connection is not None and connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        if connection is not None and context.config.attributes.get("accept_newer"):
            known = {script.revision for script in context.script.walk_revisions()}
            newer = set(context.get_context().get_current_heads()) - known
            if newer:
                check_newer_schema(connection, newer)
                return
        context.run_migrations()


async def run_online() -> None:
    """Connect and run the migrations."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if context.is_offline_mode():
    run()
else:
    asyncio.run(run_online())
