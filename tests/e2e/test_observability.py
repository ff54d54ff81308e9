"""The service as Prometheus sees it, by the dashboard and the alerts in ``deploy``."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

import aio_pika
import httpx
import pytest
from sqlalchemy import text

from harness.images import encoded, gradient
from harness.monitoring import FAST_METRICS, fired, firing, panels, prometheus, rules, values
from harness.plans import superuser
from harness.processes import free_port
from harness.servers import PostgresServer, PrometheusServer, RabbitMQServer
from harness.service import FAST_SETTINGS, Api, Worker, client, finished, upload_all
from harness.waiting import eventually

PHOTO = encoded(gradient(1600, 1200), "JPEG")
POSTER = encoded(gradient(1600, 1200), "PNG")
HOARDING = encoded(gradient(4000, 3000), "PNG")
"""Takes so long that a thief comes in time."""
CUT_OFF = PHOTO[: len(PHOTO) // 2]
LIMIT = 30.0
ALL = {rule["alert"] for rule in rules()}


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Watched:
    """API and worker, the servers behind them, and the Prometheus that watches."""

    def __init__(self, folder: Path, running: ExitStack, env: dict[str, str]) -> None:
        self._folder = folder
        self._running = running
        self._ports = {"api": free_port(), "worker": free_port()}
        self._env = env | FAST_SETTINGS | FAST_METRICS | {"STORAGE_PATH": str(folder / "storage")}
        self.storage = folder / "storage"
        self.fired: set[str] = set()

    @property
    def database_url(self) -> str:
        return self._env["DATABASE_URL"]

    def start(self) -> None:
        env = self._env | {"METRICS_PORT": str(self._ports["api"]), "MAX_BACKLOG": "40"}
        self.api = self._running.enter_context(Api(self._folder, env, "--migrate"))
        self.worker = self.start_worker()
        self.prometheus: PrometheusServer = self._running.enter_context(
            prometheus({f"image-service-{name}": [port] for name, port in self._ports.items()})
        )

    def start_worker(self, name: str = "worker", **settings: str) -> Worker:
        env = self._env | {"METRICS_PORT": str(self._ports["worker"])} | settings
        return self._running.enter_context(Worker(self._folder, env, name))

    async def alarm(self, *names: str, since: float) -> None:
        """Wait until these alerts have fired since a moment, which is one of ``time.monotonic()``."""
        silent: set[str] = set()

        def all_have_fired() -> bool:
            silent.clear()
            silent.update(set(names) - fired(self.prometheus, time.monotonic() - since))
            return not silent

        try:
            await eventually(all_have_fired, timeout=LIMIT, interval=0.2)
        except pytest.fail.Exception:
            pytest.fail(f"{silent} did not fire within {LIMIT} s; firing now: {firing(self.prometheus)}")
        self.fired.update(names)

    async def seen(self, worker: Worker) -> None:
        """Wait until Prometheus knows this worker: an increase is one over what it saw before."""
        begun = f'process_start_time_seconds{{job="image-service-worker"}} > {worker.process.create_time() - 1}'
        await eventually(lambda: values(self.prometheus, begun), timeout=LIMIT, interval=0.1)

    async def all_clear(self) -> None:
        """Wait until both processes are known, and no alert fires."""
        both = "sum(up) == 2"
        await eventually(
            lambda: values(self.prometheus, both) and not firing(self.prometheus), timeout=LIMIT, interval=0.2
        )


@pytest.fixture
def watched(tmp_path: Path, running: ExitStack, own_postgres: PostgresServer, own_rabbitmq: RabbitMQServer) -> Watched:
    database = own_postgres.create_database(f"watched_{uuid4().hex}")
    return Watched(tmp_path, running, {"DATABASE_URL": database, "RABBITMQ_URL": own_rabbitmq.url})


async def test_every_panel_of_the_dashboard_shows_something(watched: Watched, tmp_path: Path) -> None:
    watched.start()
    async with client(watched.api.url) as http:

        async def missing() -> dict[str, str]:
            """Panels without data, after some more traffic of every kind."""
            ids = await upload_all(http, [PHOTO, POSTER, CUT_OFF])
            images = await finished(http, ids)
            assert sorted(image["status"] for image in images) == ["DONE", "DONE", "ERROR"]
            await http.post("/images", files={"file": b"no image"})
            shown = {panel: values(watched.prometheus, panel.query) for panel in panels()}
            report = [f"{panel.title:64} {', '.join(f'{each:.4g}' for each in shown[panel])}" for panel in shown]
            (tmp_path / "dashboard.txt").write_text("\n".join(report))  # for people
            return {panel.title: panel.query for panel in shown if not shown[panel]}

        async def nothing_is_missing() -> bool:
            return not await missing()

        await eventually(nothing_is_missing, timeout=LIMIT)
        assert await missing() == {}
    assert firing(watched.prometheus) == set()


@pytest.mark.timeout(300)  # one fault after another; each has a limit of its own
async def test_every_alert_fires_when_its_fault_is_made(
    watched: Watched, own_postgres: PostgresServer, own_rabbitmq: RabbitMQServer
) -> None:
    watched.start()
    await watched.all_clear()
    async with client(watched.api.url) as http:
        await a_message_of_nobody(own_rabbitmq)
        await decoders_that_die(watched, http)
        await claims_that_are_stolen(watched, http)
        await asyncio.gather(a_row_that_stays_locked(watched), a_storage_that_vanishes(watched))
        await work_without_workers(watched, http)
        await servers_that_are_away(watched, http, own_postgres, own_rabbitmq)
    began = time.monotonic()
    watched.api.kill()
    await watched.alarm("ImageServiceApiDown", since=began)
    assert watched.fired == ALL


async def a_message_of_nobody(rabbitmq: RabbitMQServer) -> None:
    """It is dead-lettered; the alarm comes while the next fault is made."""
    async with await aio_pika.connect(rabbitmq.url) as connection, connection.channel() as channel:
        await channel.default_exchange.publish(aio_pika.Message(b"no image"), "images")


async def decoders_that_die(watched: Watched, http: httpx.AsyncClient) -> None:
    """Rendering takes longer than it may."""
    began = time.monotonic()
    watched.worker.stop()
    hasty = watched.start_worker("hasty", DECODE_TIMEOUT="0.01", RETRY_DELAY="0.01")
    await watched.seen(hasty)
    images = await finished(http, await upload_all(http, [POSTER] * 6))
    assert {image["error"]["code"] for image in images} == {"decoder-timeout"}
    await watched.alarm("ImageServiceDecoderFailures", "ImageServiceDeadLetters", since=began)
    hasty.stop()
    watched.worker.start()
    await watched.seen(watched.worker)


async def claims_that_are_stolen(watched: Watched, http: httpx.AsyncClient) -> None:
    """Whatever a worker holds is taken from it before it has finished."""
    began = time.monotonic()
    theft = text(
        "UPDATE images SET attempt = attempt + 1, lease_until = now(), due_at = now() "
        "WHERE status = 'PROCESSING' AND lease_until > now()"
    )

    async def steal() -> None:
        async with superuser(watched.database_url) as connection:
            while True:
                await connection.execute(theft)
                await asyncio.sleep(0.005)

    thief = asyncio.create_task(steal())
    try:
        images = await finished(http, await upload_all(http, [HOARDING] * 3))
        assert {image["error"]["code"] for image in images} == {"attempts-exhausted"}
        await watched.alarm("ImageServiceLeasesLost", "ImageServiceAttemptsExhausted", since=began)
    finally:
        thief.cancel()
        with suppress(asyncio.CancelledError):
            await thief


async def a_row_that_stays_locked(watched: Watched) -> None:
    """The reconciler waits for it in vain, round after round; the database answers all the same."""
    began = time.monotonic()
    due = text(
        "UPDATE images SET status = 'PROCESSING', error_code = NULL, due_at = now() + interval '1 second' "
        "WHERE id = (SELECT min(id::text)::uuid FROM images) RETURNING id"
    )
    lock = text("SELECT id FROM images WHERE id = :id FOR UPDATE")
    async with superuser(watched.database_url) as connection:
        image_id = (await connection.execute(due)).scalar_one()
        await connection.execute(text("BEGIN"))
        await connection.execute(lock, {"id": image_id})
        try:
            await watched.alarm("ImageServiceReconcilerNotRunning", since=began)
        finally:
            await connection.execute(text("ROLLBACK"))


async def a_storage_that_vanishes(watched: Watched) -> None:
    began = time.monotonic()
    away = watched.storage.rename(watched.storage.with_name("away"))
    await watched.alarm("ImageServiceStorageUnavailable", since=began)
    away.rename(watched.storage)


async def work_without_workers(watched: Watched, http: httpx.AsyncClient) -> None:
    """Images pile up until no more are taken."""
    began = time.monotonic()
    watched.worker.kill()
    answers: set[int] = set()

    async def go_on() -> None:
        while True:
            answers.add((await http.post("/images", files={"file": PHOTO})).status_code)
            await asyncio.sleep(0.05)

    uploading = asyncio.create_task(go_on())
    try:
        await watched.alarm(
            "ImageServiceNoWorker",
            "ImageServiceImagesStuck",
            "ImageServiceBacklogNearLimit",
            "ImageServiceUploadsRefused",
            since=began,
        )
    finally:
        uploading.cancel()
        with suppress(asyncio.CancelledError):
            await uploading
    assert answers == {202, 503}


async def servers_that_are_away(
    watched: Watched, http: httpx.AsyncClient, postgres: PostgresServer, rabbitmq: RabbitMQServer
) -> None:
    """For good: no test of this module comes after this."""
    began = time.monotonic()
    for server in (postgres, rabbitmq):
        await asyncio.to_thread(server.kill)
    assert (await http.get("/health")).json()["status"] == "unhealthy"
    await watched.alarm(
        "ImageServiceDatabaseUnavailable", "ImageServiceBrokerUnavailable", "ImageServiceMetricsStale", since=began
    )
