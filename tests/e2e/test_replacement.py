"""API and worker are replaced during uploads, as in every rollout."""

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx

from harness.images import encoded, gradient
from harness.proxy import Proxy
from harness.service import FAST_SETTINGS, Api, Worker, client, finished
from harness.waiting import eventually

IMAGE = encoded(gradient(64, 48), "JPEG")
UPLOADERS = 4
EACH = 10
"""Uploads of each uploader between two steps."""


async def test_every_upload_during_a_rollout_becomes_done(
    postgres_database_url: str, rabbitmq_virtual_host: str, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": postgres_database_url,
        "RABBITMQ_URL": rabbitmq_virtual_host,
        "STORAGE_PATH": str(tmp_path / "storage"),
        **FAST_SETTINGS,
    }
    answers: Counter[int] = Counter()
    accepted: list[str] = []
    stop = asyncio.Event()

    async def upload_until_stopped(url: str) -> None:
        while not stop.is_set():
            # A new connection for each upload, so that the load balancer chooses again.
            async with client(url) as http:
                answer = await http.post("/images", files={"file": ("photo.jpg", IMAGE)})
            answers[answer.status_code] += 1
            accepted.append(answer.json()["id"])

    async def more_are_accepted() -> None:
        before = len(accepted)
        await eventually(lambda: len(accepted) >= before + UPLOADERS * EACH, timeout=60)

    with ExitStack() as running:
        old_api = running.enter_context(Api(tmp_path / "old", env))
        old_worker = running.enter_context(Worker(tmp_path / "old", env))
        async with Proxy.before(old_api.url) as balancer:
            uploaders = [asyncio.create_task(upload_until_stopped(balancer.url(old_api.url))) for _ in range(UPLOADERS)]
            await more_are_accepted()
            new_worker, new_api = Worker(tmp_path / "new", env), Api(tmp_path / "new", env)
            for process in (new_worker, new_api):
                await asyncio.to_thread(running.enter_context, process)
            await more_are_accepted()
            balancer.lead_to(new_api.url)
            await asyncio.to_thread(old_api.stop)
            await asyncio.to_thread(old_worker.stop)
            await more_are_accepted()
            stop.set()
            await asyncio.gather(*uploaders)
        assert set(answers) == {httpx.codes.ACCEPTED}
        async with client(new_api.url) as http:
            images = await finished(http, accepted, timeout=60)
        assert Counter(image["status"] for image in images) == {"DONE": len(accepted)}
        assert new_worker.lines("image done")
