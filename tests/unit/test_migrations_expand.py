"""Migrations only add: the version that runs goes on beside the next one, on the tables that this one has made.

A migration that takes something away says so, in a constant CONTRACT: since which version nobody uses it any more.
"""

import io
import re
from collections.abc import Sequence

import pytest
from alembic import command
from alembic.script import Script, ScriptDirectory

from image_service.database.migrations import _config

URL = "postgresql+asyncpg://nobody@127.0.0.1:1/nowhere"
"""Which is not connected to: Alembic prints what it would do."""
HARMLESS = (
    r"CREATE TABLE \w+ ",
    r"CREATE INDEX \w+ ON ",
    r"DROP INDEX \w+$",  # what was sorted by it is sorted all the same
    r"ALTER TABLE \w+ ADD COLUMN (?!.*NOT NULL)",
    r"ALTER TABLE \w+ ADD COLUMN .*DEFAULT ",
    r"INSERT INTO ",
    r"UPDATE alembic_version ",
    r"(BEGIN|COMMIT)$",
)


def scripts() -> list[Script]:
    return list(ScriptDirectory.from_config(_config(URL)).walk_revisions())


def statements(script: Script) -> list[str]:
    """What a migration tells PostgreSQL."""
    output = io.StringIO()
    config = _config(URL)
    config.output_buffer = output
    command.upgrade(config, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
    told = re.sub(r"^--.*$", "", output.getvalue(), flags=re.MULTILINE)
    return [" ".join(each.split()) for each in told.split(";") if each.strip()]


def harmful(told: Sequence[str]) -> list[str]:
    # What is added with the same migration is null in every row of the version before.
    added = re.findall(r"^ALTER TABLE (\w+) ADD COLUMN (\w+)", "\n".join(told), re.MULTILINE)
    unique = [rf"CREATE UNIQUE INDEX \w+ ON {table} \({column}\)" for table, column in added]
    return [each for each in told if not any(re.match(pattern, each) for pattern in (*HARMLESS, *unique))]


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.revision)
def test_it_only_adds_or_says_that_it_does_not(script: Script) -> None:
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
def test_what_the_version_before_could_not_live_with_is_noticed(statement: str) -> None:
    assert harmful([statement]) == [statement]
    assert harmful(["ALTER TABLE images ADD COLUMN owner TEXT"]) == []
