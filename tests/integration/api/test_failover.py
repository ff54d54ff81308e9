"""A failover to a server that is read-only for a while: the answers meanwhile, and that all is well after it."""

import asyncio
from pathlib import Path
from uuid import uuid4

import httpx

from harness.api import Api, api_on, problem, upload
from harness.failover import end_sessions, make_read_only
from harness.fakes import LONG_TIMEOUT
from harness.waiting import eventually
from image_service.database import Database


async def test_uploads_are_refused_in_a_failover_and_accepted_after_it(
    postgres_database_url: str, tmp_path: Path
) -> None:
    operator = Database(postgres_database_url, time_limit=LONG_TIMEOUT, pool_size=1)
    async with api_on(postgres_database_url, tmp_path) as api:
        assert {each.status_code for each in await uploads(api)} == {202}
        await make_read_only(operator)
        await end_sessions(operator)
        await eventually(lambda: responds(api, "/images", 200))  # reading goes on, once the lost sessions are replaced
        for refused in await uploads(api):
            problem(refused, 503, "database-unavailable")
            assert refused.headers["retry-after"] == "5"
        assert len(api.originals) == 4, "refused uploads leave no files"
        await eventually(lambda: responds(api, "/health/ready", 503))
        await make_read_only(operator, read_only=False)
        for _ in range(3):
            assert {each.status_code for each in await uploads(api)} == {202}
        await eventually(lambda: responds(api, "/health/ready", 200))
        assert len(api.originals) == 16
        assert len((await api.client.get("/images")).json()["images"]) == 16
    await operator.close()


async def uploads(api: Api) -> list[httpx.Response]:
    return await asyncio.gather(*(upload(api, key=key) for key in (None, None, None, str(uuid4()))))


async def responds(api: Api, path: str, status: int) -> bool:
    return (await api.client.get(path)).status_code == status
