"""The service on a cluster of three brokers, one of which is killed."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.images import encoded, gradient
from harness.proxy import Proxy
from harness.servers import RabbitMQServer, new_folder
from harness.service import FAST_SETTINGS, Api, Worker, client, finished, upload, upload_all
from harness.waiting import eventually

IMAGE = encoded(gradient(64, 48), "JPEG")
MANY = 40
NOTHING_MENDED = {"UNQUEUED_AFTER": "600"}
"""Seconds after which a reconciler would queue again what a broker lost: long after these tests."""
FAILOVER = 30.0
"""Seconds. Both nodes that are left have to notice, and to choose a new leader for each queue."""


@pytest.fixture
def nodes() -> Iterator[list[RabbitMQServer]]:
    with ExitStack() as running:
        first = running.enter_context(RabbitMQServer(new_folder()))
        yield [first, *(running.enter_context(RabbitMQServer(new_folder(), joins=first)) for _ in range(2))]


@pytest.mark.timeout(300)
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
            **NOTHING_MENDED,
        }
        with Api(tmp_path, env) as api:
            async with client(api.url) as http:
                queued = await upload_all(http, [IMAGE] * MANY)
                dying.kill()
                proxy.lead_to(other.url)
                meanwhile = await upload(http, IMAGE)
                began = time.monotonic()

                async def is_queued() -> str:
                    accepted = await upload(http, IMAGE)
                    return str(accepted["id"]) if accepted["status"] == "PROCESSING" else ""

                queued.append(await eventually(is_queued, timeout=FAILOVER, interval=0.5))
                print(f"queued again after {time.monotonic() - began:.1f} s")  # noqa: T201  (shown with -s)
                with Worker(tmp_path, env):
                    images = await finished(http, queued, timeout=60)
                assert [image["status"] for image in images] == ["DONE"] * (MANY + 1)
                assert (await http.get(f"/images/{meanwhile['id']}")).status_code == 200
