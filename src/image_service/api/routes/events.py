"""``/events`` and ``/images/{image_id}/events``: what happens to images, as a stream or in pages."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Header, Query, Request, Response

from image_service import errors
from image_service.api.caching import NO_STORE
from image_service.api.dependencies import context_of
from image_service.api.event_stream import MEDIA_TYPE, Choice, EventSource, EventStream
from image_service.api.negotiation import named_types
from image_service.api.problems import VARY, documented
from image_service.api.routes.images import ImageId
from image_service.api.routing import Router
from image_service.api.schemas import EventList, ListedEvent
from image_service.documents.event import EXAMPLE_EVENT_ID, event_document
from image_service.domain.event import START, EventType, Position
from image_service.errors import EventsExpired, ImageNotFound, InvalidRequest

router: Final = Router(tags=["events"])

_MAX_PAGE: Final = 200
_TYPES: Final = [each.value for each in EventType]

_HOW: Final = (
    "With `Accept: text/event-stream`, a stream of Server-Sent Events, without end: of each event `id`, `event` (its "
    "type) and `data` (the document that webhooks get, too). A client whose connection ended connects again with "
    "`Last-Event-ID`, to any replica, and misses nothing and gets nothing twice; browsers do so by themselves. "
    "If events after it are not kept any more, an event `reset` comes first, whose `data` says so. "
    "Otherwise one page of them as JSON: `next` is the URL of what follows, now or later."
)
_STREAM: Final[dict[str, Any]] = {
    "schema": {"type": "string"},
    "example": f"id: {EXAMPLE_EVENT_ID}\nevent: image.done\ndata: {{…}}\n\n",
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The events, as a stream or a page.", "content": {MEDIA_TYPE: _STREAM}},
    **documented(errors.EventsExpired, errors.InvalidRequest, errors.TooManyEventStreams, errors.DatabaseUnavailable),
}

Types = Annotated[
    list[str],
    Query(
        description="Only events of these types; several in one value are separated by commas.",
        json_schema_extra={"items": {"type": "string", "enum": _TYPES}},
    ),
]
After = Annotated[
    str | None,
    Query(
        description="Only events after the one with this `id`. A stream's header Last-Event-ID comes first.",
        pattern="^evt_[0-9a-f]{8}_[0-9]{1,19}_[0-9]{1,19}$",
        examples=[EXAMPLE_EVENT_ID],
    ),
]
Limit = Annotated[int, Query(ge=1, le=_MAX_PAGE, description="Events per page.")]
LastEventId = Annotated[str | None, Header(description="The `id` of the last event that the client got from a stream.")]


@router.get(
    "/events",
    summary="Follow all events",
    description=f"{_HOW} Without `Last-Event-ID` and `after` a stream begins with the next event that happens, and the "
    "first page with the oldest event that is kept.",
    response_model=EventList,
    responses=_RESPONSES,
)
async def get_events(
    request: Request,
    response: Response,
    *,
    types: Types = [],  # noqa: B006 — FastAPI copies it
    after: After = None,
    limit: Limit = 50,
    last_event_id: LastEventId = None,
) -> EventList | Response:
    """Returns the events of all images."""
    choice = Choice(types=_chosen(types))
    if _wants_stream(request):
        last = last_event_id or after
        position = None if last is None else await context_of(request).services.event_log.resume(last)
        return _stream(request, choice, position, missed=last is not None and position is None)
    return await _page(request, response, choice, after=after, limit=limit)


@router.get(
    "/images/{image_id}/events",
    summary="Follow an image's events",
    description=f"{_HOW} Without `Last-Event-ID` and `after` both begin with the oldest event that is kept.",
    response_model=EventList,
    responses=_RESPONSES | documented(errors.ImageNotFound),
)
async def get_image_events(  # noqa: PLR0913 — one for each parameter of the request
    request: Request,
    response: Response,
    image_id: ImageId,
    *,
    types: Types = [],  # noqa: B006 — FastAPI copies it
    after: After = None,
    limit: Limit = 50,
    last_event_id: LastEventId = None,
) -> EventList | Response:
    """Returns the events of an image, which may be deleted."""
    choice = Choice(image_id=image_id, types=_chosen(types))
    wants_stream = _wants_stream(request)
    services = context_of(request).services
    if await services.lookup.find(image_id) is None and not await services.event_log.page(
        START, limit=1, image_id=image_id
    ):
        raise ImageNotFound
    if wants_stream:
        last = last_event_id or after
        position = await services.event_log.resume(last)
        missed = position is None
        if position is None:
            position = await services.event_log.resume(None)
        return _stream(request, choice, position, missed=missed)
    return await _page(request, response, choice, after=after, limit=limit)


def _wants_stream(request: Request) -> bool:
    request.scope["state"][VARY] = "Accept"
    return MEDIA_TYPE in named_types(request)


def _chosen(values: Sequence[str]) -> frozenset[EventType] | None:
    """Returns the types that the query names; None: all."""
    names = [name for value in values for name in value.split(",")]
    if unknown := [name for name in names if name not in _TYPES]:
        raise InvalidRequest(f"types: There is no type {unknown[0]!r}. There are {', '.join(_TYPES)}.")
    return frozenset(map(EventType, names)) or None


def _stream(request: Request, choice: Choice, after: Position | None, *, missed: bool) -> EventStream:
    context = context_of(request)
    source = EventSource(
        feed=context.services.feed,
        log=context.services.event_log,
        choice=choice,
        encode=partial(context.event_documents.encode, urls=context.urls(request)),
    )
    client = request.client.host if request.client else ""
    return EventStream(source.blocks(after, missed=missed), context.stream_places, client)


async def _page(request: Request, response: Response, choice: Choice, *, after: str | None, limit: int) -> EventList:
    """Returns the next page. ``next`` goes on after all that was looked at, not only after what was found.

    So it does not grow old while nothing of the choice happens.
    """
    context = context_of(request)
    log, urls = context.services.event_log, context.urls(request)
    position = await log.resume(after)
    if position is None:
        raise EventsExpired
    head = await log.head()
    events = await log.page(position, limit=limit, image_id=choice.image_id, types=choice.types)
    reached = events[-1].position if events else position
    cursor = reached if len(events) == limit else max(reached, head)
    query = {"after": await log.id_of(cursor), "limit": str(limit)}
    if choice.types is not None:
        query["types"] = ",".join(sorted(choice.types))
    response.headers["Cache-Control"] = NO_STORE
    response.headers["Vary"] = "Accept"
    shown = [(event.id, event_document(event, urls, context.services.recipes)) for event in events]
    return EventList(
        events=[ListedEvent.model_construct(id=name, **document.__dict__) for name, document in shown],
        next=urls.events(choice.image_id, query),
    )
