"""The plan of a worker's lanes, and the limit on concurrent renderings."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from harness.counted import counted
from harness.fakes import IMAGE, FakeRenderer, Script
from harness.waiting import eventually
from image_service.bootstrap import Resources, open_resources
from image_service.config import EMBEDDED_QUEUE, Settings
from image_service.domain.lane import Lane
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.observability.metrics import Metrics
from image_service.worker.lanes import ConcurrencyLimit, plan_lanes


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=SecretStr(f"sqlite+aiosqlite:///{tmp_path / 'images.db'}"),
        rabbitmq_url=SecretStr(EMBEDDED_QUEUE),
        storage_path=tmp_path / "storage",
    )


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    async with open_resources(settings, Metrics()) as resources:
        yield resources


@pytest.mark.parametrize(
    ("decode_slots", "normal", "express"),
    [(1, 5, 6), (2, 6, 7), (8, 12, 13), (10, 15, 16)],
)
async def test_prefetch_exceeds_the_decoders_of_the_lane(
    settings: Settings, resources: Resources, decode_slots: int, normal: int, express: int
) -> None:
    plan = plan_lanes(settings.model_copy(update={"decode_slots": decode_slots}), resources)
    assert {each.lane: (each.prefetch, each.background) for each in plan.lanes} == {
        Lane.NORMAL: (normal, False),
        Lane.EXPRESS: (express, False),
        Lane.BACKFILL: (1, True),
    }


@pytest.mark.parametrize("decode_slots", [0, 1, 8])
async def test_pools_have_one_decoder_more_and_one_for_the_backfill(
    settings: Settings, resources: Resources, decode_slots: int
) -> None:
    plan = plan_lanes(settings.model_copy(update={"decode_slots": decode_slots}), resources)
    assert [pool.slots for pool in plan.pools] == [decode_slots + 1, 1]
    assert resources.metrics is not None
    assert counted(resources.metrics, "decoder_slots", pool="main") == decode_slots + 1
    assert counted(resources.metrics, "decoder_slots", pool="backfill") == 1


async def test_concurrency_limit_bounds_concurrent_renderings(tmp_path: Path) -> None:
    source = tmp_path / "image"
    source.write_bytes(IMAGE)
    inner = FakeRenderer(Script())
    inner.gate.clear()
    limited = ConcurrencyLimit(inner, 2)
    tasks = [asyncio.create_task(limited.render(source, DEFAULT_RECIPE, tmp_path)) for _ in range(5)]
    await eventually(lambda: inner.running == 2)
    for _ in range(50):
        await asyncio.sleep(0)
    assert inner.running == 2
    inner.gate.set()
    await asyncio.gather(*tasks)
    assert inner.rendered == 5
