"""Migrations on both databases: upgrade and downgrade, by the program and by the `alembic` command."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from structlog.testing import capture_logs

from harness.forked import run
from harness.processes import free_port
from harness.waiting import eventually
from image_service.config import load_settings
from image_service.database.migrations import downgrade, upgrade
from image_service.errors import StartError
from image_service.models import Base
from image_service.program.migrations import run_migrations

Result = TypeVar("Result")

ROOT = Path(__file__).parents[2]
ALEMBIC = Path(sys.executable).with_name("alembic")


async def on_connection(url: str, function: Callable[[Connection], Result]) -> Result:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(function)
    finally:
        await engine.dispose()


def ask(url: str, function: Callable[[Connection], Result]) -> Result:
    return asyncio.run(on_connection(url, function))


def value(url: str, query: str) -> Any:  # noqa: ANN401  (the type of the column)
    return ask(url, lambda connection: connection.execute(text(query)).scalar())


def execute(url: str, statement: str) -> None:
    ask(url, lambda connection: connection.execute(text(statement)).close())


def tables(url: str) -> set[str]:
    return set(ask(url, lambda connection: inspect(connection).get_table_names()))


def revision(url: str) -> str | None:
    return ask(url, lambda connection: MigrationContext.configure(connection).get_current_revision())


def newest_revision() -> str | None:
    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_current_head()


def schema(connection: Connection) -> dict[str, Any]:
    """The schema of all tables, in a form that can be compared."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": sorted(
                (column["name"], str(column["type"]), column["nullable"], str(column["default"]))
                for column in inspector.get_columns(table)
            ),
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": sorted(inspector.get_foreign_keys(table), key=lambda key: str(key["name"])),
            "unique": inspector.get_unique_constraints(table),
            "checks": sorted(
                (check["name"], plain(check["sqltext"]))
                for check in inspector.get_check_constraints(table)
                # Written by hand for PostgreSQL alone; --autogenerate knows no such thing.
                if connection.dialect.name == "postgresql" or check["name"] != "ck_images_recipe_known"
            ),
            "indexes": sorted((str(index["name"]), repr(plain_index(index))) for index in inspector.get_indexes(table)),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def plain_index(index: Any) -> dict[str, Any]:  # noqa: ANN401  (as SQLAlchemy types it)
    where = {name: plain(str(condition)) for name, condition in index["dialect_options"].items() if "where" in name}
    return {"columns": index["column_names"], "unique": index["unique"], **where}


def plain(condition: str) -> str:
    return re.sub(r"\s+", " ", condition)


def made_from_models(connection: Connection) -> dict[str, Any]:
    Base.metadata.create_all(connection)
    return schema(connection)


def differences(connection: Connection) -> list[Any]:
    options = {"compare_type": True, "compare_server_default": True}
    found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    return found


def environment(url: str) -> dict[str, str]:
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return {**unmeasured, "DATABASE_URL": url}


class Alembic(Protocol):
    """Runs Alembic's command in a folder; returns its output."""

    def __call__(self, *arguments: str, url: str, folder: Path = ROOT) -> str: ...


@pytest.fixture
def alembic(fork_server: str) -> Alembic:
    def alembic(*arguments: str, url: str, folder: Path = ROOT) -> str:
        done = run(fork_server, "alembic.config", *arguments, folder=folder, environment=environment(url))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return alembic


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files that the `alembic` command works on."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copyfile(ROOT / "alembic.ini", folder / "alembic.ini")
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def versions(checkout: Path) -> set[Path]:
    return set((checkout / "migrations" / "versions").glob("*.py"))


def test_upgrade_downgrade_and_upgrade_give_the_same_schema(empty_database_url: str) -> None:
    url = empty_database_url
    upgrade(url)
    assert tables(url) == {*Base.metadata.tables, "alembic_version"}
    assert revision(url) == newest_revision()
    up = ask(url, schema)
    downgrade(url)
    assert tables(url) == {"alembic_version"}
    assert revision(url) is None
    upgrade(url)
    assert ask(url, schema) == up


def test_every_revision_can_be_downgraded_and_upgraded_again(empty_database_url: str) -> None:
    steps = [script.revision for script in ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).walk_revisions()]
    assert steps
    for step in reversed(steps):
        upgrade(empty_database_url, step)
        up = ask(empty_database_url, schema)
        downgrade(empty_database_url, "-1")
        upgrade(empty_database_url, step)
        assert ask(empty_database_url, schema) == up
    assert revision(empty_database_url) == newest_revision()


IMAGES: dict[str, dict[str, Any]] = {
    "NEW": {"due_at": "2026-01-01 00:00:00.250000"},
    "PROCESSING": {"due_at": "2026-01-01 00:00:00", "queued_at": "2026-01-01 00:00:00", "attempt": 3},
    "DONE": {"finished_at": "2026-01-01 00:00:00", "placeholder": "AAAA", "metadata_removed": '["exif"]'},
    "ERROR": {"finished_at": "2026-01-01 00:00:00", "error_code": "corrupt-image", "error_detail": "Broken."},
}


def kept(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """All images and thumbnails, with the columns of revision 0002."""
    images = "id, status, format, width, height, size_bytes, sha256, attempt, attempts_charged, decoder_failures"
    images += ", lease_until, queued_at, publishes, due_at, error_code, error_detail, created_at, updated_at"
    images += ", finished_at, placeholder, dominant_colour"
    thumbnails = "image_id, preset, key, content_type, width, height, size_bytes, sha256"
    return {
        table: [tuple(row) for row in rows(url, f"SELECT {columns} FROM {table} ORDER BY 1, 2")]  # noqa: S608  (no input of users)
        for table, columns in (("images", images), ("thumbnails", thumbnails))
    }


def rows(url: str, query: str) -> list[Any]:
    return ask(url, lambda connection: list(connection.execute(text(query))))


def fill(url: str) -> None:
    """Record an image in each state, two of them with thumbnails, with the columns of revision 0002."""
    common = {"format": "png", "width": 640, "height": 480, "size_bytes": 5 * 2**30, "sha256": "ab" * 32}
    common |= dict.fromkeys(("created_at", "updated_at"), "2026-01-01 00:00:00")
    for number, (status, values) in enumerate(IMAGES.items()):
        insert(url, "images", {"id": image_id(number), "status": status, **common, **values})
    made = {"content_type": "image/jpeg", "width": 75, "height": 100, "size_bytes": 9, "sha256": "cd" * 32}
    for number in (2, 3):
        for preset in ("100x100", "300x300"):
            key = f"thumbnails/00/{number}.1.{preset}"
            insert(url, "thumbnails", {"image_id": image_id(number), "preset": preset, "key": key, **made})


def image_id(number: int) -> str:
    return f"0190000000007000800000000000000{number}"


def insert(url: str, table: str, values: dict[str, Any]) -> None:
    literals = ", ".join(repr(value) for value in values.values())
    execute(url, f"INSERT INTO {table} ({', '.join(values)}) VALUES ({literals})")  # noqa: S608  (no input of users)


def test_revision_0003_keeps_images_and_thumbnails_in_both_directions(empty_database_url: str) -> None:
    url = empty_database_url
    upgrade(url, "0002")
    fill(url)
    before = kept(url)
    assert (len(before["images"]), len(before["thumbnails"])) == (4, 4)
    for _ in range(2):
        upgrade(url, "0003")
        assert kept(url) == before
        assert rows(url, "SELECT DISTINCT lane, recipe, idempotency_key, original_removed_at FROM images") == [
            ("normal", None, None, None)
        ]
        downgrade(url, "0002")
        assert kept(url) == before


def test_downgrade_from_0003_drops_only_its_own_columns_and_tables(empty_database_url: str) -> None:
    url = empty_database_url
    upgrade(url, "0002")
    fill(url)
    upgrade(url, "0003")
    execute(url, "UPDATE images SET lane = 'backfill', recipe = '0123456789abcdef', idempotency_key = sha256 || status")
    execute(url, "UPDATE images SET original_removed_at = updated_at WHERE status = 'ERROR'")
    execute(url, "UPDATE images SET status = 'NEW', due_at = updated_at WHERE status = 'DONE'")
    insert(url, "removals", {"key": "thumbnails/00/gone", "due_at": "2026-01-01 00:00:00"})
    before = kept(url)
    downgrade(url, "0002")
    assert kept(url) == before
    upgrade(url, "0003")
    assert kept(url) == before
    assert value(url, "SELECT count(*) FROM removals") == 0
    assert value(url, "SELECT count(*) FROM identity") == 1


def test_version_of_revision_0002_can_write_to_revision_0003(empty_database_url: str) -> None:
    url = empty_database_url
    upgrade(url, "0003")
    fill(url)
    expected = [(status, "normal", None) for status in IMAGES]
    assert rows(url, "SELECT status, lane, idempotency_key FROM images ORDER BY id") == expected
    execute(url, "DELETE FROM images WHERE status = 'DONE'")
    assert value(url, "SELECT count(*) FROM images") == 3


def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    fill(database_url)
    before = ask(database_url, schema)
    upgrade(database_url)
    assert ask(database_url, schema) == before
    assert value(database_url, "SELECT count(*) FROM images") == 4


def test_migrations_and_models_do_not_differ(database_url: str) -> None:
    assert ask(database_url, differences) == []


def test_difference_between_migrations_and_models_is_detected(database_url: str) -> None:
    execute(database_url, "ALTER TABLE images ADD COLUMN extra INTEGER")
    execute(database_url, "DROP INDEX ix_images_due_at")
    found = repr(ask(database_url, differences))
    assert "remove_column" in found
    assert "add_index" in found


def test_migrations_create_the_schema_of_the_models(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    made = ask(empty_database_url, schema)
    downgrade(empty_database_url)
    assert made == ask(empty_database_url, made_from_models)


async def test_upgrade_works_in_a_thread_and_from_any_folder(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread(upgrade, empty_database_url)
    assert await on_connection(empty_database_url, differences) == []


async def test_concurrent_upgrades_wait_for_each_other(alembic: Alembic, empty_postgres_url: str) -> None:
    url = empty_postgres_url
    lock = int(re.findall(r"^LOCK = ([\d_]+)$", (ROOT / "migrations" / "env.py").read_text(), re.MULTILINE)[0])
    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
        "WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
    )
    engine = create_async_engine(url, poolclass=NullPool)
    async with asyncio.TaskGroup() as processes:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": lock})
            running = [processes.create_task(asyncio.to_thread(alembic, "upgrade", "head", url=url)) for _ in range(3)]

            async def all_wait() -> bool:
                assert not any(process.done() for process in running)
                return (await connection.execute(text(waiting))).scalar() == 3

            condition: Callable[[], bool | Awaitable[bool]] = all_wait
            await eventually(condition, timeout=60)
        await engine.dispose()
    count = await on_connection(url, lambda c: c.execute(text("SELECT count(*) FROM alembic_version")).scalar())
    assert count == 1
    assert await on_connection(url, differences) == []


def test_alembic_upgrades_and_downgrades(alembic: Alembic, empty_database_url: str) -> None:
    command = (str(ALEMBIC), "upgrade", "head")  # as a developer would
    subprocess.run(command, cwd=ROOT, env=environment(empty_database_url), check=True)  # noqa: S603  (a fixed command)
    assert ask(empty_database_url, differences) == []
    assert f"{newest_revision()} (head)" in alembic("current", url=empty_database_url)
    alembic("check", url=empty_database_url)
    alembic("downgrade", "base", url=empty_database_url)
    assert tables(empty_database_url) == {"alembic_version"}


def test_alembic_autogenerates_an_empty_migration_without_changes(
    alembic: Alembic, checkout: Path, database_url: str
) -> None:
    before = versions(checkout)
    alembic("revision", "--autogenerate", "-m", "nothing at all", url=database_url, folder=checkout)
    (written,) = versions(checkout) - before
    assert re.fullmatch(r"\d{8}_[0-9a-f]+_nothing_at_all\.py", written.name)
    assert written.read_text().count("    pass\n") == 2
    alembic("upgrade", "head", url=database_url, folder=checkout)
    assert f"_{revision(database_url)}_" in written.name


def test_alembic_autogenerates_a_complete_migration_from_the_models(
    alembic: Alembic, checkout: Path, empty_database_url: str
) -> None:
    for script in versions(checkout):
        script.unlink()
    alembic("revision", "--autogenerate", "-m", "everything", url=empty_database_url, folder=checkout)
    (written,) = versions(checkout)
    assert "image_service" not in written.read_text()
    alembic("upgrade", "head", url=empty_database_url, folder=checkout)
    made = ask(empty_database_url, schema)
    alembic("downgrade", "base", url=empty_database_url, folder=checkout)
    assert tables(empty_database_url) == {"alembic_version"}
    assert made == ask(empty_database_url, made_from_models)


def test_offline_sql_creates_the_same_tables(alembic: Alembic, empty_database_url: str, tmp_path: Path) -> None:
    sqlite = empty_database_url.startswith("sqlite")
    unreachable = f"{tmp_path}/missing/images.db" if sqlite else f"app@127.0.0.1:{free_port()}/images"
    script = alembic("upgrade", "head", "--sql", url=f"{empty_database_url.partition('://')[0]}://{unreachable}")
    asyncio.run(execute_script(empty_database_url, script))
    printed = ask(empty_database_url, schema)
    assert revision(empty_database_url) == newest_revision()
    downgrade(empty_database_url)
    upgrade(empty_database_url)
    assert printed == ask(empty_database_url, schema)


async def execute_script(url: str, script: str) -> None:
    """Execute several statements in one call, which only the drivers themselves support."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await (driver.executescript if url.startswith("sqlite") else driver.execute)(script)
    await engine.dispose()


def test_version_before_serves_a_newer_schema_that_was_only_expanded(database_url: str) -> None:
    fill(database_url)
    execute(database_url, "ALTER TABLE images ADD COLUMN owner TEXT")
    execute(database_url, "ALTER TABLE images ADD COLUMN stars INTEGER DEFAULT 0 NOT NULL")
    execute(database_url, "CREATE TABLE owners (name TEXT NOT NULL)")
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    before = ask(database_url, schema)
    with capture_logs() as logs:
        run_migrations(load_settings(database_url=database_url))
    assert [(line["log_level"], line["revision"]) for line in logs] == [("warning", "9999")]
    assert "later version" in logs[0]["event"]
    assert ask(database_url, schema) == before
    assert revision(database_url) == "9999"
    insert(database_url, "removals", {"key": "written", "due_at": "2026-01-01 00:00:00"})


def test_version_that_cannot_serve_a_newer_schema_says_why(database_url: str) -> None:
    for statement in (
        "ALTER TABLE images RENAME COLUMN lane TO line",
        "ALTER TABLE removals ADD COLUMN reason TEXT DEFAULT 'x' NOT NULL",
        "DROP TABLE identity",
        "UPDATE alembic_version SET version_num = '9999'",
    ):
        execute(database_url, statement)
    if not database_url.startswith("sqlite"):  # SQLite adds no column that has to have a value and has no default
        execute(database_url, "ALTER TABLE removals ADD COLUMN cause TEXT NOT NULL")
    with pytest.raises(StartError) as caught:
        run_migrations(load_settings(database_url=database_url))
    reasons = ["revision 9999", "column images.lane is missing", "table identity is missing"]
    if not database_url.startswith("sqlite"):
        reasons.append("column removals.cause needs a value")
    assert [reason for reason in reasons if reason not in caught.value.detail] == []
    assert "removals.reason" not in caught.value.detail
    assert "DATABASE_URL" not in caught.value.detail


def test_alembic_refuses_a_wrong_database_url(checkout: Path) -> None:
    done = subprocess.run(  # noqa: S603  (a fixed command)
        [ALEMBIC, "upgrade", "head"], cwd=checkout, env=environment("mysql://db"), capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"DATABASE_URL is not usable" in done.stderr


async def test_migration_names_the_session_whose_lock_it_waits_for_and_gives_up(empty_postgres_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_postgres_url)
    engine = create_async_engine(empty_postgres_url, poolclass=NullPool)
    async with engine.begin() as holder:
        await holder.execute(text("LOCK TABLE alembic_version"))
        pid = (await holder.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        gives_up = pytest.raises(StartError, match=r"held a lock that this needs for 2 s\. .*--lock-timeout")
        with capture_logs() as log, gives_up:
            await asyncio.to_thread(upgrade, empty_postgres_url, lock_timeout=2)
    await engine.dispose()
    (line,) = log
    assert line["event"] == "migration waits for a lock of another session"
    assert (line["pid"], line["state"], line["limit_seconds"]) == (pid, "idle in transaction", 2)
