"""API or worker dies in every window of an image's life, and the power fails: on PostgreSQL and RabbitMQ."""

import pytest

from tests.faults import windows
from tests.faults.machine import Machine
from tests.faults.windows import DELETION, REPROCESSING, UPLOAD, Window, of_servers


@pytest.mark.parametrize("window", of_servers(UPLOAD), ids=lambda window: window.name)
async def test_nothing_is_lost_when_a_process_dies(window: Window, distributed: Machine) -> None:
    await windows.die_while_uploading(distributed, window)


@pytest.mark.parametrize("window", of_servers(DELETION), ids=lambda window: window.name)
async def test_a_deletion_is_all_or_nothing_when_a_process_dies(window: Window, distributed: Machine) -> None:
    await windows.die_while_deleting(distributed, window)


@pytest.mark.parametrize("window", of_servers(REPROCESSING), ids=lambda window: window.name)
async def test_thumbnails_are_replaced_at_once_or_not_when_a_process_dies(window: Window, distributed: Machine) -> None:
    await windows.die_while_reprocessing(distributed, window)
