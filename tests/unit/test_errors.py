"""The advice that errors give to clients."""

import pytest

from image_service import errors


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.TooManyUploads, 2),
        (errors.TooManyEventStreams, 10),
        (errors.TooManyConnections, 5),
        (errors.BacklogFull, 5),
        (errors.DatabaseUnavailable, 5),
        (errors.StorageUnavailable, 5),
        (errors.StorageFull, 60),
        (errors.CorruptImage, None),
        (errors.ServiceError, None),
    ],
)
def test_errors_say_when_to_try_again(error: type[errors.ServiceError], seconds: int | None) -> None:
    assert error.retry_after == seconds
    assert error().retry_after == seconds
