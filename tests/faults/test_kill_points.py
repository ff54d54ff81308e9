"""Kills the API or the worker at every kill point and cuts the power, on PostgreSQL and RabbitMQ."""

import pytest

from tests.faults import kill_points
from tests.faults.host import Host
from tests.faults.kill_points import DELETION, LATE_OUTPUTS, REPROCESSING, UPLOAD, KillPoint, for_distributed


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


@pytest.mark.parametrize("kill_point", for_distributed(LATE_OUTPUTS), ids=lambda kill_point: kill_point.name)
async def test_kill_while_outputs_are_made_again_loses_none(kill_point: KillPoint, distributed: Host) -> None:
    await kill_points.die_during_late_outputs(distributed, kill_point)
