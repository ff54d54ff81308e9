"""Migrations only expand the schema: the running version goes on working on the migrated tables.

A migration that removes something has a constant CONTRACT, which names the version since which it is unused.
"""

import io
import re
from collections.abc import Sequence

import pytest
from alembic import command
from alembic.script import Script, ScriptDirectory

from image_service.database.migrations import alembic_config

URL = "postgresql+asyncpg://app@127.0.0.1:1/images"
"""Never connected to: Alembic prints the SQL."""
HARMLESS = (
    r"CREATE TABLE \w+ ",
    r"CREATE INDEX \w+ ON ",
    r"DROP INDEX \w+$",  # queries only become slower
    r"ALTER TABLE \w+ ADD COLUMN (?!.*NOT NULL)",
    r"ALTER TABLE \w+ ADD COLUMN .*DEFAULT ",
    r"INSERT INTO ",
    r"UPDATE alembic_version ",
    # It holds for every row of a version that knows no recipes, whose images all have the recipe without a name.
    r"ALTER TABLE images ADD CONSTRAINT ck_images_recipe_known CHECK \(recipe_name IS NULL OR ",
    r"(BEGIN|COMMIT)$",
)


def scripts() -> list[Script]:
    return list(ScriptDirectory.from_config(alembic_config(URL)).walk_revisions())


def statements(script: Script) -> list[str]:
    """The SQL statements of a migration on PostgreSQL."""
    output = io.StringIO()
    config = alembic_config(URL)
    config.output_buffer = output
    command.upgrade(config, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
    printed = re.sub(r"^--.*$", "", output.getvalue(), flags=re.MULTILINE)
    return [" ".join(each.split()) for each in printed.split(";") if each.strip()]


def harmful(sql: Sequence[str]) -> list[str]:
    """Statements that the version before may not work with."""
    # A column added by the same migration is null in every row that the version before writes.
    added = re.findall(r"^ALTER TABLE (\w+) ADD COLUMN (\w+)", "\n".join(sql), re.MULTILINE)
    unique = [rf"CREATE UNIQUE INDEX \w+ ON {table} \({column}\)" for table, column in added]
    return [each for each in sql if not any(re.match(pattern, each) for pattern in (*HARMLESS, *unique))]


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.revision)
def test_migration_only_expands_or_is_marked_contract(script: Script) -> None:
    assert bool(harmful(statements(script))) == hasattr(script.module, "CONTRACT")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE images",
        "ALTER TABLE images DROP COLUMN lane",
        "ALTER TABLE images RENAME COLUMN lane TO line",
        "ALTER TABLE images ALTER COLUMN lane TYPE TEXT",
        "ALTER TABLE images ALTER COLUMN recipe SET NOT NULL",
        "ALTER TABLE images ADD COLUMN owner TEXT NOT NULL",
        "ALTER TABLE images ADD CONSTRAINT ck_small CHECK (width < 9)",
        "CREATE UNIQUE INDEX ux_images_sha256 ON images (sha256)",
        "UPDATE images SET status = 'DONE'",
    ],
)
def test_contracting_statement_is_detected(statement: str) -> None:
    assert harmful([statement]) == [statement]
    assert harmful(["ALTER TABLE images ADD COLUMN owner TEXT"]) == []
