"""Health, with all dependencies and without one of them."""

import asyncio
from pathlib import Path

import pytest

from harness.api import UNKNOWN, Api, UnavailableQueue, accepted, api_on, is_recent, problem, upload
from harness.pace import Stopwatch
from harness.processes import free_port
from harness.proxy import Mode, Proxy


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_healthy_service_returns_200(api: Api, path: str) -> None:
    answer = await api.client.get(path)
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert is_recent(body.pop("timestamp"))
    assert body == {
        "status": "healthy",
        "services": {"database": True, "rabbitmq": True, "storage": True},
        "waiting": {"normal": 0, "express": 0, "backfill": 0},
        "mode": "standalone",
    }


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_queue_outage_is_degraded_but_ready(sqlite_url: str, tmp_path: Path, path: str) -> None:
    async with api_on(sqlite_url, tmp_path, UnavailableQueue(), rabbitmq_url="amqp://unknown.invalid/") as api:
        answer = await api.client.get(path)
    body = answer.json()
    assert answer.status_code == 200
    assert is_recent(body.pop("timestamp"))
    assert body == {
        "status": "degraded",
        "services": {"database": True, "rabbitmq": False, "storage": True},
        "waiting": None,
        "mode": "distributed",
    }


def unreachable_database(kind: str, folder: Path) -> str:
    """Returns the URL of a database that cannot be reached."""
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{folder / 'missing' / 'images.db'}"
    return f"postgresql+asyncpg://unknown@127.0.0.1:{free_port()}/nothing"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_database_outage_is_unhealthy_but_alive(tmp_path: Path, kind: str) -> None:
    async with api_on(unreachable_database(kind, tmp_path), tmp_path) as api:
        for path in ("/health", "/health/ready"):
            answer = await api.client.get(path)
            body = answer.json()
            assert answer.status_code == 503
            assert is_recent(body.pop("timestamp"))
            assert body == {
                "status": "unhealthy",
                "services": {"database": False, "rabbitmq": True, "storage": True},
                "waiting": {"normal": 0, "express": 0, "backfill": 0},
                "mode": "standalone",
            }
        alive = await api.client.get("/health/live")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})


async def test_storage_outage_is_unhealthy_and_refuses_uploads(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "storage").write_bytes(b"a file, not a directory")
    async with api_on(sqlite_url, tmp_path) as api:
        report = await api.client.get("/health")
        answer = await upload(api)
    assert report.status_code == 503
    assert report.json()["status"] == "unhealthy"
    assert report.json()["services"] == {"database": True, "rabbitmq": True, "storage": False}
    problem(answer, 503, "storage-unavailable")
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_unreachable_database_returns_503_in_time(tmp_path: Path, kind: str) -> None:
    async with api_on(unreachable_database(kind, tmp_path), tmp_path) as api:
        watch = Stopwatch()
        answers = await asyncio.gather(
            upload(api), api.client.get(f"/images/{UNKNOWN}"), api.client.get(f"/images/{UNKNOWN}/original")
        )
        assert watch.seconds < 6
        for answer in answers:
            problem(answer, 503, "database-unavailable")
            assert answer.headers["retry-after"] == "5"
        assert not api.scratch


async def test_a_hundred_concurrent_requests_cause_one_probe(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = 0
    probe = api.resources.storage.probe

    async def counted() -> None:
        nonlocal probes
        probes += 1
        await probe()

    monkeypatch.setattr(api.resources.storage, "probe", counted)
    answers = await asyncio.gather(*(api.client.get(path) for path in ["/health", "/health/ready"] * 50))
    assert {answer.status_code for answer in answers} == {200}
    assert probes <= 2  # the second if the requests take longer than a result is reused


async def test_hanging_database_fails_health_within_three_seconds(postgres_database_url: str, tmp_path: Path) -> None:
    async with Proxy.before(postgres_database_url) as proxy, api_on(proxy.url(postgres_database_url), tmp_path) as api:
        image_id = await accepted(api)
        proxy.switch(Mode.BLACK_HOLE)
        watch = Stopwatch()
        health = asyncio.create_task(api.client.get("/health"))
        answers = asyncio.gather(upload(api), api.client.get(f"/images/{image_id}"))
        report = await health
        assert watch.seconds < 3
        assert report.status_code == 503
        assert report.json()["services"] == {"database": False, "rabbitmq": True, "storage": True}
        for answer in await answers:
            problem(answer, 503, "database-unavailable")
        assert watch.seconds < 6
        assert not api.scratch
