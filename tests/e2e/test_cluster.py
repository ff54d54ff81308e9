"""The service on a cluster of three brokers, one of which is killed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.images import encoded, gradient
from harness.proxy import Proxy
from harness.servers import RabbitMQServer, new_folder
from harness.service import FAST_SETTINGS, Api, Worker, client, finished, upload
from harness.waiting import eventually

IMAGE = encoded(gradient(64, 48), "JPEG")
MANY = 40
NO_REPAIR = {"UNQUEUED_AFTER": "600"}
"""The reconciler would replace lost messages only after these seconds: long after the test."""
FAILOVER = 30.0
"""Seconds for the remaining nodes to notice, and to elect a new leader for each queue."""


@pytest.fixture
def nodes() -> Iterator[list[RabbitMQServer]]:
    with ExitStack() as running, ThreadPoolExecutor() as threads:
        first = running.enter_context(RabbitMQServer(new_folder()))
        others = [RabbitMQServer(new_folder(), joins=first) for _ in range(2)]
        for server in others:
            running.callback(server.close)
        for start in [threads.submit(server.start) for server in others]:
            start.result()
        yield [first, *others]


async def test_one_of_three_brokers_dies_and_no_confirmed_message_is_lost(
    nodes: list[RabbitMQServer], postgres_database_url: str, tmp_path: Path
) -> None:
    _, dying, other = nodes
    async with Proxy.before(dying.url) as proxy:
        env = {
            "DATABASE_URL": postgres_database_url,
            "RABBITMQ_URL": proxy.url(dying.url),
            "STORAGE_PATH": str(tmp_path / "storage"),
            **FAST_SETTINGS,
            **NO_REPAIR,
        }
        with Api(tmp_path, env) as api:
            async with client(api.url) as http:

                async def queued_upload() -> str:
                    """Upload an image; return its id if the broker has confirmed its message."""
                    accepted = await upload(http, IMAGE)
                    return str(accepted["id"]) if accepted["status"] == "PROCESSING" else ""

                queued = [await eventually(queued_upload, timeout=FAILOVER) for _ in range(MANY)]
                dying.kill()
                proxy.lead_to(other.url)
                unconfirmed = await upload(http, IMAGE)
                queued.append(await eventually(queued_upload, timeout=FAILOVER, interval=0.5))
                with Worker(tmp_path, env):
                    images = await finished(http, queued, timeout=60)
                assert [image["status"] for image in images] == ["DONE"] * (MANY + 1)
                assert (await http.get(f"/images/{unconfirmed['id']}")).status_code == 200
