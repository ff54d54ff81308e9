"""A failover while images are rendered: none is charged, and all are DONE once the database can be written to again."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harness.failover import end_sessions, make_read_only
from harness.fakes import LONG_TIMEOUT
from harness.service_harness import ServiceHarness
from harness.waiting import eventually
from image_service.database import Database
from image_service.domain.keys import original_key
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable
from image_service.ports import Delivery
from image_service.services.outage_retry import retry_on_outage


async def test_a_failover_while_images_are_rendered_charges_none(postgres_database_url: str, tmp_path: Path) -> None:
    operator = Database(postgres_database_url, time_limit=LONG_TIMEOUT, pool_size=1)
    async with ServiceHarness.on(postgres_database_url, tmp_path / "storage") as env:
        images = [await env.queued() for _ in range(6)]
        processing = env.processing(max_attempts=1)
        env.renderer.gate.clear()
        rendered = [asyncio.create_task(processing.process(Delivery(image_id=each))) for each in images[:3]]
        await eventually(lambda: env.renderer.running == 3)
        await make_read_only(operator)
        await end_sessions(operator)
        with capture_logs():
            env.renderer.gate.set()
            await eventually(lambda: env.script.tried["complete"] > 3)
            for each in images[3:]:
                with pytest.raises(DatabaseUnavailable):
                    await processing.process(Delivery(image_id=each))
            await make_read_only(operator, read_only=False)
            await asyncio.gather(*rendered)
            for each in images[3:]:
                await retry_on_outage(partial(processing.process, Delivery(image_id=each)), budget=LONG_TIMEOUT)
        for each in images:
            row = await retry_on_outage(partial(env.row, each), budget=LONG_TIMEOUT)
            assert (row["status"], row["attempt"]) == (Status.DONE, 1)
        assert env.renderer.rendered == 6
        assert await env.files("originals/") == {original_key(each) for each in images}
    await operator.close()
