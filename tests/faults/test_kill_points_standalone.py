"""Kills the standalone process at every kill point and cuts the power, on SQLite without a broker."""

from collections.abc import Callable

import pytest

from tests.faults import kill_points
from tests.faults.host import Host
from tests.faults.kill_points import DELETION, GROUP, MANY_ATTEMPTS, REPROCESSING, UPLOAD, KillPoint, for_standalone


@pytest.mark.parametrize("kill_point", for_standalone(UPLOAD), ids=lambda kill_point: kill_point.name)
async def test_standalone_kill_during_upload_loses_nothing(kill_point: KillPoint, standalone: Host) -> None:
    await kill_points.die_during_upload(standalone, kill_point)


@pytest.mark.parametrize("kill_point", for_standalone(DELETION), ids=lambda kill_point: kill_point.name)
async def test_standalone_kill_during_deletion_deletes_all_or_nothing(kill_point: KillPoint, standalone: Host) -> None:
    await kill_points.die_during_deletion(standalone, kill_point)


@pytest.mark.parametrize("kill_point", for_standalone(REPROCESSING), ids=lambda kill_point: kill_point.name)
async def test_standalone_kill_during_reprocessing_replaces_all_thumbnails_or_none(
    kill_point: KillPoint, standalone: Host
) -> None:
    await kill_points.die_during_reprocessing(standalone, kill_point)


@pytest.mark.parametrize(("where", "kept"), [("before group.commit", 1), ("after group.commit", 1 + GROUP)])
async def test_standalone_kill_around_the_commit_of_a_group_keeps_all_or_none(
    where: str, kept: int, standalone: Host
) -> None:
    assert await kill_points.die_with_a_group(standalone, where) == kept


async def test_standalone_kill_while_outputs_follow_loses_none(make_standalone: Callable[..., Host]) -> None:
    await kill_points.die_while_outputs_follow(make_standalone(**MANY_ATTEMPTS))


async def test_standalone_kill_while_events_are_passed_on_loses_none(make_standalone: Callable[..., Host]) -> None:
    await kill_points.die_while_events_are_passed_on(make_standalone(**MANY_ATTEMPTS))


async def test_standalone_kill_while_events_are_purged_keeps_those_that_are_needed(
    make_standalone: Callable[..., Host],
) -> None:
    await kill_points.die_while_events_are_purged(make_standalone(**MANY_ATTEMPTS, EVENTS_RETENTION_HOURS="0.0003"))


async def test_standalone_kill_while_outputs_are_replaced_keeps_old_or_new_ones(
    make_standalone: Callable[..., Host],
) -> None:
    await kill_points.die_while_outputs_are_replaced(make_standalone(**MANY_ATTEMPTS))
