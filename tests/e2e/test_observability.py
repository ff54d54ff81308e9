"""The dashboard and the alerts in ``deploy``, evaluated by a real Prometheus."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import httpx
import pytest
from sqlalchemy import text

from harness.broker import channel_to
from harness.images import encoded, gradient
from harness.monitoring import FAST_METRICS, fired, firing, panels, prometheus, rules, values
from harness.plans import superuser
from harness.processes import free_port
from harness.servers import PostgresServer, PrometheusServer, RabbitMQServer
from harness.service import FAST_SETTINGS, Api, Worker, client, finished, upload_all
from harness.waiting import eventually

PHOTO = encoded(gradient(1600, 1200), "JPEG")
POSTER = encoded(gradient(1600, 1200), "PNG")
"""Rendering takes long enough for its claim to be taken meanwhile."""
CUT_OFF = PHOTO[: len(PHOTO) // 2]
EXCHANGE = "watched.events"
LIMIT = 30.0
ALL = {rule["alert"] for rule in rules()}


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Watched:
    """API, worker, their servers, and a Prometheus that scrapes them."""

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
        env = self._env | {"METRICS_PORT": str(self._ports["api"]), "MAX_BACKLOG": "40", "MAX_CONNECTIONS": "40"}
        self.api = self._running.enter_context(Api(self._folder, env, "--migrate"))
        self.worker = self.start_worker()
        self.prometheus: PrometheusServer = self._running.enter_context(
            prometheus({f"image-service-{name}": [port] for name, port in self._ports.items()})
        )

    def start_worker(self, name: str = "worker", **settings: str) -> Worker:
        env = self._env | {"METRICS_PORT": str(self._ports["worker"])} | settings
        return self._running.enter_context(Worker(self._folder, env, name))

    async def wait_for_alerts(self, *names: str, since: float) -> None:
        """Wait until these alerts have fired since ``since``, a value of ``time.monotonic()``."""
        missing: set[str] = set()

        def all_have_fired() -> bool:
            missing.clear()
            missing.update(set(names) - fired(self.prometheus, time.monotonic() - since))
            return not missing

        try:
            await eventually(all_have_fired, timeout=LIMIT, interval=0.2)
        except pytest.fail.Exception:
            pytest.fail(f"{missing} did not fire within {LIMIT} s; firing now: {firing(self.prometheus)}")
        self.fired.update(names)

    async def wait_until_scraped(self, worker: Worker) -> None:
        """Wait until Prometheus has scraped this worker: an increase needs an earlier sample."""
        begun = f'process_start_time_seconds{{job="image-service-worker"}} > {worker.process.create_time() - 1}'
        await eventually(lambda: values(self.prometheus, begun), timeout=LIMIT, interval=0.1)

    async def wait_until_quiet(self) -> None:
        """Wait until both processes are scraped and no alert fires."""
        both = "sum(up) == 2"
        await eventually(
            lambda: values(self.prometheus, both) and not firing(self.prometheus), timeout=LIMIT, interval=0.2
        )


@pytest.fixture
def watched(tmp_path: Path, running: ExitStack, own_postgres: PostgresServer, own_rabbitmq: RabbitMQServer) -> Watched:
    database = own_postgres.create_database(f"watched_{uuid4().hex}")
    env = {"DATABASE_URL": database, "RABBITMQ_URL": own_rabbitmq.url, "EVENTS_EXCHANGE": EXCHANGE}
    return Watched(tmp_path, running, env)


async def test_every_dashboard_panel_has_data(watched: Watched, tmp_path: Path) -> None:
    watched.start()
    async with client(watched.api.url) as http:

        async def missing() -> dict[str, str]:
            """Return the panels without data, after more traffic of every kind."""
            ids = await upload_all(http, [PHOTO, POSTER, CUT_OFF])
            images = await finished(http, ids)
            assert sorted(image["status"] for image in images) == ["DONE", "DONE", "ERROR"]
            await http.post("/images", files={"file": b"no image"})
            shown = {panel: values(watched.prometheus, panel.query) for panel in panels()}
            report = [f"{panel.title:64} {', '.join(f'{each:.4g}' for each in shown[panel])}" for panel in shown]
            (tmp_path / "dashboard.txt").write_text("\n".join(report))  # for manual inspection
            return {panel.title: panel.query for panel in shown if not shown[panel]}

        async def nothing_is_missing() -> bool:
            return not await missing()

        await eventually(nothing_is_missing, timeout=LIMIT)
        assert await missing() == {}
    assert firing(watched.prometheus) == set()


async def test_every_alert_fires_for_its_fault(
    watched: Watched, own_postgres: PostgresServer, own_rabbitmq: RabbitMQServer
) -> None:
    await declare_another_exchange(own_rabbitmq)
    watched.start()
    await watched.wait_until_quiet()
    async with client(watched.api.url) as http:
        await publish_no_events(watched, http, own_rabbitmq)
        await exhaust_connections(watched)
        await publish_malformed_message(own_rabbitmq)
        await kill_decoders(watched, http)
        await steal_claims(watched, http)
        await asyncio.gather(lock_row(watched), remove_storage(watched))
        await fill_backlog(watched, http)
        await kill_servers(watched, http, own_postgres, own_rabbitmq)
    began = time.monotonic()
    watched.api.kill()
    await watched.wait_for_alerts("ImageServiceApiDown", since=began)
    assert watched.fired == ALL


async def declare_another_exchange(rabbitmq: RabbitMQServer) -> None:
    async with channel_to(rabbitmq.url) as channel:
        await channel.exchange_delete(EXCHANGE)
        await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.FANOUT)


async def publish_no_events(watched: Watched, http: httpx.AsyncClient, rabbitmq: RabbitMQServer) -> None:
    """The exchange is of another type."""
    began = time.monotonic()
    await upload_all(http, [PHOTO])
    await watched.wait_for_alerts("ImageServiceEventsNotPublished", since=began)
    async with channel_to(rabbitmq.url) as channel:
        await channel.exchange_delete(EXCHANGE)


async def exhaust_connections(watched: Watched) -> None:
    """Open connections without end, and send nothing."""
    began = time.monotonic()
    address = urlsplit(watched.api.url)
    idle: list[asyncio.StreamWriter] = []

    async def go_on() -> None:
        while True:
            idle.append((await asyncio.open_connection(address.hostname, address.port))[1])
            await asyncio.sleep(0.02)

    connecting = asyncio.create_task(go_on())
    try:
        await watched.wait_for_alerts("ImageServiceConnectionsExhausted", since=began)
    finally:
        connecting.cancel()
        with suppress(asyncio.CancelledError):
            await connecting
        for writer in idle:
            writer.transport.abort()
    assert watched.api.lines("connection limit reached")


async def publish_malformed_message(rabbitmq: RabbitMQServer) -> None:
    """It is dead-lettered; the alert is awaited with the next fault."""
    async with await aio_pika.connect(rabbitmq.url) as connection, connection.channel() as channel:
        await channel.default_exchange.publish(aio_pika.Message(b"no image"), "images")


async def kill_decoders(watched: Watched, http: httpx.AsyncClient) -> None:
    """Let rendering exceed its timeout."""
    began = time.monotonic()
    watched.worker.stop()
    limited = watched.start_worker("limited", DECODE_TIMEOUT="0.01", RETRY_DELAY="0.01")
    await watched.wait_until_scraped(limited)
    images = await finished(http, await upload_all(http, [POSTER] * 6))
    assert {image["error"]["code"] for image in images} == {"decoder-timeout"}
    await watched.wait_for_alerts("ImageServiceDecoderFailures", "ImageServiceDeadLetters", since=began)
    limited.stop()
    watched.worker.start()
    await watched.wait_until_scraped(watched.worker)


async def steal_claims(watched: Watched, http: httpx.AsyncClient) -> None:
    """Take every claim away before its worker has finished."""
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

    large = encoded(gradient(4000, 3000), "PNG")
    stealing = asyncio.create_task(steal())
    try:
        images = await finished(http, await upload_all(http, [large] * 3))
        assert {image["error"]["code"] for image in images} == {"attempts-exhausted"}
        await watched.wait_for_alerts("ImageServiceLeasesLost", "ImageServiceAttemptsExhausted", since=began)
    finally:
        stealing.cancel()
        with suppress(asyncio.CancelledError):
            await stealing


async def lock_row(watched: Watched) -> None:
    """Block the reconciler in every run, while the database stays available."""
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
            await watched.wait_for_alerts("ImageServiceReconcilerNotRunning", since=began)
        finally:
            await connection.execute(text("ROLLBACK"))


async def remove_storage(watched: Watched) -> None:
    began = time.monotonic()
    away = watched.storage.rename(watched.storage.with_name("away"))
    await watched.wait_for_alerts("ImageServiceStorageUnavailable", since=began)
    away.rename(watched.storage)


async def fill_backlog(watched: Watched, http: httpx.AsyncClient) -> None:
    """Upload without a worker until uploads are refused, with one webhook endpoint that works and one that fails."""
    began = time.monotonic()
    watched.worker.kill()
    endpoint = text(
        "INSERT INTO webhooks (id, url, secret, failing_since, created_at, updated_at) "
        "VALUES (gen_random_uuid(), 'https://example.org/', 'whsec_', :since, now(), now())"
    )
    async with superuser(watched.database_url) as connection:
        await connection.execute(endpoint, {"since": None})
        await connection.execute(endpoint, {"since": datetime.now(UTC)})
    answers: set[int] = set()

    async def go_on() -> None:
        while True:
            answers.add((await http.post("/images", files={"file": PHOTO})).status_code)
            await asyncio.sleep(0.05)

    uploading = asyncio.create_task(go_on())
    try:
        await watched.wait_for_alerts(
            "ImageServiceNoWorker",
            "ImageServiceImagesStuck",
            "ImageServiceBacklogNearLimit",
            "ImageServiceUploadsRefused",
            "ImageServiceWebhooksOverdue",
            "ImageServiceWebhookFailing",
            since=began,
        )
    finally:
        uploading.cancel()
        with suppress(asyncio.CancelledError):
            await uploading
    assert answers == {202, 503}


async def _is_unhealthy(http: httpx.AsyncClient) -> bool:
    return bool((await http.get("/health")).json()["status"] == "unhealthy")


async def kill_servers(
    watched: Watched, http: httpx.AsyncClient, postgres: PostgresServer, rabbitmq: RabbitMQServer
) -> None:
    """Not restarted: this is the module's last test."""
    began = time.monotonic()
    for server in (postgres, rabbitmq):
        await asyncio.to_thread(server.kill)
    await eventually(lambda: _is_unhealthy(http))
    await watched.wait_for_alerts(
        "ImageServiceDatabaseUnavailable", "ImageServiceBrokerUnavailable", "ImageServiceMetricsStale", since=began
    )
