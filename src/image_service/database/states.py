"""Being in a state, in words by which a database finds the index that holds few other images."""

from typing import Final

from sqlalchemy import BindParameter, ColumnElement, literal

from image_service.domain.status import Status
from image_service.models import ImageRow

_TYPE: Final = ImageRow.__table__.c.status.type


def in_state(status: Status) -> ColumnElement[bool]:
    """That an image is in a state.

    The state stands in the statement itself. As a parameter it would not be known when PostgreSQL makes a plan that has
    to do for all parameters, and no plan could then use an index that leaves the images that are DONE out.
    """
    if status is Status.DONE:
        return ImageRow.status == _verbatim(status)
    return (ImageRow.status == _verbatim(status)) & (ImageRow.status != _verbatim(Status.DONE))


def _verbatim(status: Status) -> BindParameter[Status]:
    return literal(status, _TYPE, literal_execute=True)
