"""The one process dies in every window of an image's life, and the power fails: on SQLite, without a broker."""

import pytest

from tests.faults import windows
from tests.faults.machine import Machine
from tests.faults.windows import DELETION, REPROCESSING, UPLOAD, Window, of_one_process


@pytest.mark.parametrize("window", of_one_process(UPLOAD), ids=lambda window: window.name)
async def test_nothing_is_lost_when_the_process_dies(window: Window, standalone: Machine) -> None:
    await windows.die_while_uploading(standalone, window)


@pytest.mark.parametrize("window", of_one_process(DELETION), ids=lambda window: window.name)
async def test_a_deletion_is_all_or_nothing_when_the_process_dies(window: Window, standalone: Machine) -> None:
    await windows.die_while_deleting(standalone, window)


@pytest.mark.parametrize("window", of_one_process(REPROCESSING), ids=lambda window: window.name)
async def test_thumbnails_are_replaced_at_once_or_not_when_the_process_dies(
    window: Window, standalone: Machine
) -> None:
    await windows.die_while_reprocessing(standalone, window)
