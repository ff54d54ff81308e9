"""The migrations, on both databases: up, down and up again, by the program and by the `alembic` command."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

from harness.processes import free_port
from harness.waiting import eventually
from image_service.database.migrations import downgrade, upgrade
from image_service.models import Base

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


def value(url: str, query: str) -> Any:  # noqa: ANN401  (whatever the query is for)
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
    """All that the database knows about our tables, in words that can be compared."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": sorted(
                (column["name"], str(column["type"]), column["nullable"], str(column["default"]))
                for column in inspector.get_columns(table)
            ),
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": inspector.get_foreign_keys(table),
            "unique": inspector.get_unique_constraints(table),
            "checks": sorted(
                (check["name"], plain(check["sqltext"])) for check in inspector.get_check_constraints(table)
            ),
            "indexes": sorted((str(index["name"]), repr(plain_index(index))) for index in inspector.get_indexes(table)),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def plain_index(index: Any) -> dict[str, Any]:  # noqa: ANN401  (the inspector's own)
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
    return {**os.environ, "DATABASE_URL": url}


def alembic(*arguments: str, url: str, folder: Path = ROOT) -> str:
    """What the command prints, run as a person would."""
    done = subprocess.run(  # noqa: S603  (our own words)
        [ALEMBIC, *arguments],
        cwd=folder,
        env=environment(url),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A copy of what the `alembic` command works on."""
    folder = tmp_path / "workshop"
    folder.mkdir()
    shutil.copyfile(ROOT / "alembic.ini", folder / "alembic.ini")
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def versions(workshop: Path) -> set[Path]:
    return set((workshop / "migrations" / "versions").glob("*.py"))


def test_up_down_and_up_again(empty_database_url: str) -> None:
    url = empty_database_url
    upgrade(url)
    assert tables(url) == {"images", "thumbnails", "removals", "identity", "alembic_version"}
    assert revision(url) == newest_revision()
    up = ask(url, schema)
    downgrade(url)
    assert tables(url) == {"alembic_version"}
    assert revision(url) is None
    upgrade(url)
    assert ask(url, schema) == up


def test_every_single_step_goes_up_down_and_up_again(empty_database_url: str) -> None:
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
    """All images and thumbnails, as far as the version before 0003 knows them."""
    images = "id, status, format, width, height, size_bytes, sha256, attempt, attempts_charged, decoder_failures"
    images += ", lease_until, queued_at, publishes, due_at, error_code, error_detail, created_at, updated_at"
    images += ", finished_at, placeholder, dominant_colour"
    thumbnails = "image_id, preset, key, content_type, width, height, size_bytes, sha256"
    return {
        table: [tuple(row) for row in rows(url, f"SELECT {columns} FROM {table} ORDER BY 1, 2")]  # noqa: S608  (our own words)
        for table, columns in (("images", images), ("thumbnails", thumbnails))
    }


def rows(url: str, query: str) -> list[Any]:
    return ask(url, lambda connection: list(connection.execute(text(query))))


def fill(url: str) -> None:
    """Record an image in each state, two of them with thumbnails, as the version before 0003 does."""
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
    execute(url, f"INSERT INTO {table} ({', '.join(values)}) VALUES ({literals})")  # noqa: S608  (our own words)


def test_images_and_thumbnails_survive_what_a_long_life_asks_for_and_the_way_back(empty_database_url: str) -> None:
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


def test_what_a_long_life_brought_is_lost_on_the_way_back_and_nothing_else(empty_database_url: str) -> None:
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


def test_the_version_before_0003_can_go_on_beside_the_one_after_it(empty_database_url: str) -> None:
    url = empty_database_url
    upgrade(url, "0003")
    fill(url)
    expected = [(status, "normal", None) for status in IMAGES]
    assert rows(url, "SELECT status, lane, idempotency_key FROM images ORDER BY id") == expected
    execute(url, "DELETE FROM images WHERE status = 'DONE'")
    assert value(url, "SELECT count(*) FROM images") == 3


def test_upgrading_twice_is_upgrading_once(database_url: str) -> None:
    fill(database_url)
    before = ask(database_url, schema)
    upgrade(database_url)
    assert ask(database_url, schema) == before
    assert value(database_url, "SELECT count(*) FROM images") == 4


def test_alembic_finds_no_difference_between_migrations_and_models(database_url: str) -> None:
    assert ask(database_url, differences) == []


def test_alembic_would_find_a_difference(database_url: str) -> None:
    execute(database_url, "ALTER TABLE images ADD COLUMN extra INTEGER")
    execute(database_url, "DROP INDEX ix_images_due_at")
    found = repr(ask(database_url, differences))
    assert "remove_column" in found
    assert "add_index" in found


def test_migrations_make_exactly_what_the_models_describe(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    made = ask(empty_database_url, schema)
    downgrade(empty_database_url)
    assert made == ask(empty_database_url, made_from_models)


async def test_the_program_upgrades_in_a_thread_from_any_folder(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread(upgrade, empty_database_url)
    assert await on_connection(empty_database_url, differences) == []


async def test_upgrades_at_once_wait_for_each_other(empty_postgres_url: str) -> None:
    url = empty_postgres_url
    lock = int(re.findall(r"^LOCK = ([\d_]+)$", (ROOT / "migrations" / "env.py").read_text(), re.MULTILINE)[0])
    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
        "WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
    )
    engine = create_async_engine(url, poolclass=NullPool)
    with ExitStack() as stack:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": lock})
            running = [
                stack.enter_context(
                    subprocess.Popen(  # noqa: ASYNC220, S603  (to run while the test looks; our own words)
                        [ALEMBIC, "upgrade", "head"],
                        cwd=ROOT,
                        env=environment(url),
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                    )
                )
                for _ in range(3)
            ]

            async def all_wait() -> bool:
                assert [process.poll() for process in running] == [None] * 3
                return (await connection.execute(text(waiting))).scalar() == 3

            condition: Callable[[], bool | Awaitable[bool]] = all_wait
            await eventually(condition, timeout=60)
        await engine.dispose()
        output = [(await asyncio.to_thread(process.communicate, timeout=60))[0] for process in running]
        assert [process.returncode for process in running] == [0] * 3, output
    count = await on_connection(url, lambda c: c.execute(text("SELECT count(*) FROM alembic_version")).scalar())
    assert count == 1
    assert await on_connection(url, differences) == []


def test_the_command_upgrades_and_downgrades(empty_database_url: str) -> None:
    alembic("upgrade", "head", url=empty_database_url)
    assert ask(empty_database_url, differences) == []
    assert f"{newest_revision()} (head)" in alembic("current", url=empty_database_url)
    alembic("check", url=empty_database_url)
    alembic("downgrade", "base", url=empty_database_url)
    assert tables(empty_database_url) == {"alembic_version"}


def test_the_command_writes_an_empty_migration_where_nothing_has_changed(workshop: Path, database_url: str) -> None:
    before = versions(workshop)
    alembic("revision", "--autogenerate", "-m", "nothing at all", url=database_url, folder=workshop)
    (written,) = versions(workshop) - before
    assert re.fullmatch(r"\d{8}_[0-9a-f]+_nothing_at_all\.py", written.name)
    assert written.read_text().count("    pass\n") == 2
    alembic("upgrade", "head", url=database_url, folder=workshop)
    assert f"_{revision(database_url)}_" in written.name


def test_the_command_writes_a_whole_migration_from_the_models(workshop: Path, empty_database_url: str) -> None:
    for script in versions(workshop):
        script.unlink()
    alembic("revision", "--autogenerate", "-m", "everything", url=empty_database_url, folder=workshop)
    (written,) = versions(workshop)
    assert "image_service" not in written.read_text()
    alembic("upgrade", "head", url=empty_database_url, folder=workshop)
    made = ask(empty_database_url, schema)
    alembic("downgrade", "base", url=empty_database_url, folder=workshop)
    assert tables(empty_database_url) == {"alembic_version"}
    assert made == ask(empty_database_url, made_from_models)


def test_the_command_prints_sql_that_makes_the_same_tables_without_a_database(
    empty_database_url: str, tmp_path: Path
) -> None:
    sqlite = empty_database_url.startswith("sqlite")
    away = f"{tmp_path}/missing/images.db" if sqlite else f"app@127.0.0.1:{free_port()}/images"
    script = alembic("upgrade", "head", "--sql", url=f"{empty_database_url.partition('://')[0]}://{away}")
    asyncio.run(execute_script(empty_database_url, script))
    printed = ask(empty_database_url, schema)
    assert revision(empty_database_url) == newest_revision()
    downgrade(empty_database_url)
    upgrade(empty_database_url)
    assert printed == ask(empty_database_url, schema)


async def execute_script(url: str, script: str) -> None:
    """Many statements at once, which only the drivers themselves can take."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await (driver.executescript if url.startswith("sqlite") else driver.execute)(script)
    await engine.dispose()


def test_the_command_refuses_a_wrong_database_url(workshop: Path) -> None:
    done = subprocess.run(  # noqa: S603  (our own words)
        [ALEMBIC, "upgrade", "head"], cwd=workshop, env=environment("mysql://db"), capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"DATABASE_URL is not usable" in done.stderr
