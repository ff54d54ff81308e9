"""Kills the API or the worker at every kill point and cuts the power, on PostgreSQL and RabbitMQ."""

from collections.abc import Callable

import pytest

from tests.faults import kill_points
from tests.faults.host import Host
from tests.faults.kill_points import DELETION, MANY_ATTEMPTS, REPROCESSING, UPLOAD, KillPoint, for_distributed
from tests.faults.receivers import EXCHANGE


@pytest.mark.parametrize("kill_point", for_distributed(UPLOAD), ids=lambda kill_point: kill_point.name)
async def test_kill_during_upload_loses_nothing(kill_point: KillPoint, distributed: Host) -> None:
    await kill_points.die_during_upload(distributed, kill_point)


@pytest.mark.parametrize("kill_point", for_distributed(DELETION), ids=lambda kill_point: kill_point.name)
async def test_kill_during_deletion_deletes_all_or_nothing(kill_point: KillPoint, distributed: Host) -> None:
    await kill_points.die_during_deletion(distributed, kill_point)


@pytest.mark.parametrize("kill_point", for_distributed(REPROCESSING), ids=lambda kill_point: kill_point.name)
async def test_kill_during_reprocessing_replaces_all_thumbnails_or_none(
    kill_point: KillPoint, distributed: Host
) -> None:
    await kill_points.die_during_reprocessing(distributed, kill_point)


async def test_kill_while_outputs_follow_loses_none(make_host: Callable[..., Host]) -> None:
    await kill_points.die_while_outputs_follow(make_host(**MANY_ATTEMPTS))


async def test_kill_while_events_are_passed_on_loses_none(make_host: Callable[..., Host]) -> None:
    await kill_points.die_while_events_are_passed_on(make_host(**MANY_ATTEMPTS, EVENTS_EXCHANGE=EXCHANGE))


async def test_kill_while_events_are_purged_keeps_those_that_are_needed(make_host: Callable[..., Host]) -> None:
    settings = {**MANY_ATTEMPTS, "EVENTS_EXCHANGE": EXCHANGE, "EVENTS_RETENTION_HOURS": "0.0003"}
    await kill_points.die_while_events_are_purged(make_host(**settings))


async def test_kill_while_outputs_are_replaced_keeps_old_or_new_ones(make_host: Callable[..., Host]) -> None:
    await kill_points.die_while_outputs_are_replaced(make_host(**MANY_ATTEMPTS))
