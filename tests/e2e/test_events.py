"""A client follows all events while its connection is cut again and again, and a replica of the API dies."""

import asyncio
from pathlib import Path

from harness.images import encoded, gradient
from harness.service import FAST_SETTINGS, Api, Worker, client, upload_all
from harness.sse import Comparison, Follower, logged, stream
from harness.waiting import wait_for

IMAGE = encoded(gradient(16, 16), "PNG")
HALF = 20
EVENTS = 2 * 2 * HALF
CUTS = 10


async def test_a_client_that_is_cut_misses_no_event_over_two_replicas_one_of_which_dies(
    postgres_database_url: str, rabbitmq_virtual_host: str, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": postgres_database_url,
        "RABBITMQ_URL": rabbitmq_virtual_host,
        "STORAGE_PATH": str(tmp_path / "storage"),
        **FAST_SETTINGS,
    }

    with Api(tmp_path / "1", env) as api, Api(tmp_path / "2", env) as dying, Worker(tmp_path, env):
        follower = Follower(urls=[f"{each.url}/events" for each in (api, dying)], cuts=CUTS, lines=40)
        following = asyncio.create_task(follower.follow(EVENTS))
        await wait_for(follower.begun.wait())
        async with client(api.url) as http:
            await upload_all(http, [IMAGE] * HALF)
            await asyncio.to_thread(dying.kill)
            await upload_all(http, [IMAGE] * HALF)
            await asyncio.to_thread(dying.start)
            await wait_for(following, timeout=60)
            recorded = await logged(http)
        assert len(recorded) == EVENTS
        assert Comparison.of(follower.events, recorded) == Comparison(gaps=0, repeats=0, disorder=0)
        assert follower.connections > CUTS
        async with stream(f"{api.url}/events") as opened:
            await opened.block()
            stopping = asyncio.create_task(asyncio.to_thread(api.stop))
            assert await opened.rest() == []
            await stopping
