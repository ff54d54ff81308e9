"""The limit of concurrent uploads."""

import asyncio

import pytest

from image_service.api.upload_limit import UploadLimit
from image_service.errors import TooManyUploads


def test_limit_bounds_the_slots_in_use() -> None:
    limit = UploadLimit(2)
    with limit.slot(), limit.slot():
        with pytest.raises(TooManyUploads), limit.slot():
            pytest.fail("a third upload got a slot")
        # The refused upload has not released a slot that it did not occupy.
        with pytest.raises(TooManyUploads), limit.slot():
            pytest.fail("a third upload got a slot")
    with limit.slot(), limit.slot():
        pass


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError])
def test_slot_is_released_when_the_upload_fails(failure: type[BaseException]) -> None:
    limit = UploadLimit(1)
    for _ in range(3):
        with pytest.raises(failure), limit.slot():
            raise failure
    with limit.slot():
        pass
