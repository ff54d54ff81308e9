"""API and worker as separate processes on PostgreSQL and RabbitMQ, during faults."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from harness.broker import start
from harness.images import encoded, gradient
from harness.proxy import Mode, Proxy
from harness.servers import RabbitMQServer
from harness.service import (
    FAST_SETTINGS,
    OPEN,
    PROGRAM,
    STOPPING,
    Api,
    Worker,
    client,
    done,
    finished,
    status,
    upload,
    upload_all,
)
from harness.waiting import eventually
from image_service.database import Database
from image_service.models import ImageRow
from image_service.queue.rabbitmq import RabbitMQQueue
from image_service.worker.lanes import AHEAD

SMALL = encoded(gradient(64, 48), "JPEG")
PHOTO = encoded(gradient(1600, 1200), "JPEG")
POSTER = encoded(gradient(1600, 1200), "PNG")
"""Too large for the express lane."""
MANY = 400
RECOVERY = 60.0


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str:
    """The private broker for tests that restart it, else a virtual host of the shared one."""
    if "own_rabbitmq" not in request.fixturenames:
        return str(request.getfixturevalue("rabbitmq_virtual_host"))
    server: RabbitMQServer = request.getfixturevalue("own_rabbitmq")
    return server.url


@pytest.fixture
def env(postgres_database_url: str, broker_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": postgres_database_url,
        "RABBITMQ_URL": broker_url,
        "STORAGE_PATH": str(tmp_path / "storage"),
        **FAST_SETTINGS,
    }


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def api(env: dict[str, str], running: ExitStack, tmp_path: Path) -> Api:
    return running.enter_context(Api(tmp_path, env))


@pytest.fixture
def start_worker(env: dict[str, str], running: ExitStack, tmp_path: Path) -> Callable[..., Worker]:
    def start_worker(name: str = "worker", **settings: str) -> Worker:
        return running.enter_context(Worker(tmp_path, env | settings, name))

    return start_worker


async def depth(env: dict[str, str]) -> int:
    """Return the number of ready messages in all lanes."""
    queue = RabbitMQQueue(env["RABBITMQ_URL"])
    await start(queue)
    try:
        return sum((await queue.depth()).values())
    finally:
        await queue.close()


@pytest.mark.real_start
async def test_upload_becomes_thumbnails_and_worker_logs_its_request_id(
    api: Api, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker()
    async with client(api.url) as http:
        accepted = await upload(http, PHOTO, **{"X-Request-ID": "from-the-client"})
        assert accepted["status"] == "PROCESSING"
        image = await done(http, accepted["id"])
        assert set(image["thumbnails"]) == {"100x100", "300x300", "1200x1200"}
        assert (await http.get(image["original_url"])).content == PHOTO
        health = (await http.get("/health")).json()
    assert health["status"] == "healthy"
    assert health["mode"] == "distributed"
    assert [line["level"] for line in api.lines(OPEN)] == ["warning"]
    (line,) = worker.lines("image done")
    assert (line["image_id"], line["request_id"]) == (accepted["id"], "from-the-client")


@pytest.mark.real_start
async def test_api_with_migrate_option_creates_the_tables(
    env: dict[str, str], empty_postgres_url: str, tmp_path: Path
) -> None:
    with Api(tmp_path, env | {"DATABASE_URL": empty_postgres_url}, "--migrate") as api:
        async with client(api.url) as http:
            await eventually(lambda: _condition_is(http, "healthy"))


async def test_migrate_command_creates_the_tables(env: dict[str, str], empty_postgres_url: str, tmp_path: Path) -> None:
    env |= {"DATABASE_URL": empty_postgres_url}
    migrated = subprocess.run(  # noqa: S603, ASYNC221  (constant command, nothing else to do)
        [*PROGRAM, "migrate"], env=os.environ | env, capture_output=True, text=True, timeout=300, check=False
    )
    assert (migrated.returncode, migrated.stdout) == (0, "The database's tables are up to date.\n"), migrated.stderr
    with Api(tmp_path, env) as api:
        async with client(api.url) as http:
            await eventually(lambda: _condition_is(http, "healthy"))


async def test_all_of_400_uploads_become_done(
    api: Api, start_worker: Callable[..., Worker], env: dict[str, str]
) -> None:
    start_worker()
    async with client(api.url) as http:
        ids = await upload_all(http, [SMALL, SMALL, SMALL, PHOTO] * (MANY // 4))
        images = await finished(http, ids, timeout=RECOVERY)
    assert [image["status"] for image in images] == ["DONE"] * MANY
    assert await depth(env) == 0


async def test_broker_restart_during_uploads_loses_nothing(
    api: Api, start_worker: Callable[..., Worker], own_rabbitmq: RabbitMQServer
) -> None:
    start_worker()
    async with client(api.url) as http:
        first = await upload_all(http, [SMALL] * (MANY // 2))
        restart = asyncio.create_task(asyncio.to_thread(own_rabbitmq.restart))
        second = await upload_all(http, [SMALL] * (MANY // 2))
        await restart
        images = await finished(http, first + second, timeout=RECOVERY)
    assert [image["status"] for image in images] == ["DONE"] * MANY


async def test_backlog_survives_a_broker_restart(
    api: Api, start_worker: Callable[..., Worker], own_rabbitmq: RabbitMQServer, env: dict[str, str]
) -> None:
    async with client(api.url) as http:
        ids = await upload_all(http, [SMALL] * 20)
        await asyncio.to_thread(own_rabbitmq.restart)
        assert await depth(env) == 20
        start_worker(UNCLAIMED_AFTER="3600")
        images = await finished(http, ids, timeout=RECOVERY)
    assert [image["status"] for image in images] == ["DONE"] * 20


async def test_upload_during_broker_outage_is_processed_afterwards(
    api: Api, start_worker: Callable[..., Worker], own_rabbitmq: RabbitMQServer
) -> None:
    start_worker()
    await asyncio.to_thread(own_rabbitmq.stop)
    try:
        async with client(api.url) as http:
            await eventually(lambda: _condition_is(http, "degraded"))
            accepted = await upload(http, PHOTO)
            assert accepted["status"] == "NEW"
            assert (await status(http, accepted["id"]))["status"] == "NEW"
    finally:
        await asyncio.to_thread(own_rabbitmq.start)
    async with client(api.url) as http:
        await done(http, accepted["id"], timeout=RECOVERY)
        await eventually(lambda: _condition_is(http, "healthy"), timeout=RECOVERY)


async def _condition_is(http: httpx.AsyncClient, expected: str) -> bool:
    answer = await http.get("/health")
    assert answer.status_code == 200
    return bool(answer.json()["status"] == expected)


async def test_image_of_a_killed_worker_is_processed_by_another(
    api: Api, start_worker: Callable[..., Worker], env: dict[str, str]
) -> None:
    first = start_worker("first")
    first.hold_decoders()
    async with client(api.url) as http:
        image_id = (await upload(http, PHOTO))["id"]
        await eventually(lambda: _held(env))
        first.crash()
        start_worker("second")
        await done(http, image_id, timeout=RECOVERY)


async def test_api_killed_between_commit_and_publish_loses_nothing(
    env: dict[str, str], start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    async with Proxy.before(env["RABBITMQ_URL"]) as proxy:
        with Api(tmp_path, env | {"RABBITMQ_URL": proxy.url(env["RABBITMQ_URL"])}) as api:
            async with client(api.url) as http:
                await eventually(lambda: _condition_is(http, "healthy"))
                proxy.switch(Mode.BLACK_HOLE)  # after the commit, the publish now waits for its confirm
                uploading = asyncio.create_task(upload(http, PHOTO))
                await eventually(lambda: _listed(http))
                api.kill()
                with pytest.raises(httpx.HTTPError):
                    await uploading
    (image_id,) = [path.name for path in _originals(tmp_path)]
    start_worker()
    with Api(tmp_path / "again", env) as api:
        async with client(api.url) as http:
            await done(http, image_id)


async def _listed(http: httpx.AsyncClient) -> list[str]:
    """Return the ids of all recorded images."""
    return [image["id"] for image in (await http.get("/images")).json()["images"]]


def _originals(folder: Path) -> list[Path]:
    return list((folder / "storage" / "originals").glob("*/*"))


def _thumbnails(folder: Path) -> list[Path]:
    return list((folder / "storage" / "thumbnails").glob("*/*"))


def _scratch(folder: Path) -> list[Path]:
    """Return the files in all scratch folders."""
    return list((folder / "storage" / "scratch").glob("*/*"))


async def _held(env: dict[str, str]) -> int:
    """Return the number of leased images."""
    database = Database(env["DATABASE_URL"])
    try:
        async with database.transaction() as repositories:
            held = select(func.count()).where(ImageRow.lease_until.is_not(None))
            return (await repositories.connection.execute(held)).scalar_one()
    finally:
        await database.close()


async def test_worker_resumed_after_its_lease_changes_nothing(
    api: Api, start_worker: Callable[..., Worker], env: dict[str, str], tmp_path: Path
) -> None:
    stale = start_worker("stale")
    stale.hold_decoders()
    async with client(api.url) as http:
        image_id = (await upload(http, PHOTO))["id"]
        await eventually(lambda: _held(env))
        stale.process.suspend()
        stale.release_decoders()
        start_worker("other")
        before = await done(http, image_id)
        stale.process.resume()
        await eventually(lambda: stale.lines("claim lost: claimed by another worker, or deleted"))
        after = await status(http, image_id)
        assert after == before
        for url in after["thumbnails"].values():
            assert (await http.get(url)).status_code == 200
    await eventually(lambda: len(_thumbnails(tmp_path)) == 3)


@pytest.mark.parametrize("crash", [False, True], ids=["the worker finishes", "the worker crashes"])
async def test_image_deleted_while_it_is_rendered_leaves_no_files(
    api: Api, start_worker: Callable[..., Worker], env: dict[str, str], tmp_path: Path, *, crash: bool
) -> None:
    sweeping = {"ORPHAN_GRACE": "4", "SWEEP_INTERVAL": "0.3"}
    worker = start_worker("first", **sweeping)
    worker.hold_decoders()
    async with client(api.url) as http:
        image_id = (await upload(http, PHOTO))["id"]
        await eventually(lambda: _held(env))
        assert (await http.delete(f"/images/{image_id}")).status_code == 204
        assert (await http.get(f"/images/{image_id}")).status_code == 404
        if crash:
            worker.crash()
            start_worker("second", **sweeping)
        else:
            worker.release_decoders()
        await eventually(lambda: not (_originals(tmp_path) or _thumbnails(tmp_path) or _scratch(tmp_path)), timeout=20)
        other = await done(http, (await upload(http, PHOTO))["id"], timeout=RECOVERY)
        assert [path.name for path in _originals(tmp_path)] == [other["id"]]
        assert len(_thumbnails(tmp_path)) == len(other["thumbnails"])
    assert await depth(env) == 0


async def _holds(env: dict[str, str], images: int) -> bool:
    return await _held(env) == images


async def test_old_thumbnails_are_served_during_reprocessing(
    api: Api, start_worker: Callable[..., Worker], env: dict[str, str]
) -> None:
    worker = start_worker()
    async with client(api.url) as http:
        image_id = (await upload(http, PHOTO))["id"]
        before = await done(http, image_id)
        worker.hold_decoders()
        answer = await http.post(f"/images/{image_id}/reprocess", headers={"X-Request-ID": "reprocess-request"})
        assert (answer.status_code, answer.json()["status"]) == (202, "PROCESSING")
        await eventually(lambda: _held(env))
        meanwhile = await status(http, image_id)
        assert (meanwhile["status"], meanwhile["finished_at"]) == ("PROCESSING", None)
        assert meanwhile["thumbnails"] == before["thumbnails"]
        for url in meanwhile["thumbnails"].values():
            assert (await http.get(url)).status_code == 200
        assert (await http.post(f"/images/{image_id}/reprocess")).status_code == 409
        worker.release_decoders()
        after = await done(http, image_id)
        assert after["finished_at"] > before["finished_at"]
        for url in after["thumbnails"].values():
            assert (await http.get(url)).status_code == 200
    assert [line["request_id"] for line in worker.lines("image done")][1:] == ["reprocess-request"]


async def test_stopped_worker_finishes_its_claims_and_leaves_the_rest(
    api: Api, start_worker: Callable[..., Worker], env: dict[str, str]
) -> None:
    worker, taken = start_worker(DECODE_SLOTS="1"), 1 + AHEAD
    worker.hold_decoders()
    async with client(api.url) as http:
        ids = await upload_all(http, [POSTER] * (taken + 2))
        await eventually(lambda: _holds(env, taken))
        stopping = asyncio.create_task(asyncio.to_thread(worker.stop))
        await eventually(lambda: worker.lines(STOPPING))
        worker.release_decoders()
        await stopping
        states = [(await status(http, image_id))["status"] for image_id in ids]
        assert sorted(states) == ["DONE"] * taken + ["PROCESSING"] * 2
        assert await depth(env) == 2
        start_worker("next")
        images = await finished(http, ids)
    assert [image["status"] for image in images] == ["DONE"] * len(ids)
