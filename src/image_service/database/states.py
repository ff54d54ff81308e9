"""Conditions on an image's state, worded so that the database uses the index on images that are not DONE."""

from typing import Final

from sqlalchemy import BindParameter, ColumnElement, literal

from image_service.domain.status import Status
from image_service.models import ImageRow

_TYPE: Final = ImageRow.__table__.c.status.type


def in_state(status: Status) -> ColumnElement[bool]:
    """The condition that an image is in a state.

    The state is part of the statement's text. PostgreSQL may plan a prepared statement once for all parameters; were
    the state a parameter, that plan could not use an index that leaves out the images that are DONE.
    """
    if status is Status.DONE:
        return ImageRow.status == _verbatim(status)
    return (ImageRow.status == _verbatim(status)) & (ImageRow.status != _verbatim(Status.DONE))


def _verbatim(status: Status) -> BindParameter[Status]:
    return literal(status, _TYPE, literal_execute=True)
