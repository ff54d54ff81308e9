"""The documents of events."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from image_service.documents.event import encode_event
from image_service.documents.image import image_status
from image_service.documents.urls import Urls
from image_service.domain.event import Event, EventType, Position, event_id, position_of
from image_service.domain.image import Image, ImageFormat, ImageHeader
from image_service.domain.recipe import Recipes
from image_service.domain.status import Status

DATABASE = UUID("01932b5c-8f2a-7c3e-9d41-5a6b7c8d9e0f")
URLS = Urls("https://img.example.org")
TIME = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
IMAGE = Image(
    id=DATABASE,
    status=Status.NEW,
    header=ImageHeader(format=ImageFormat.PNG, width=3, height=2),
    size_bytes=10,
    sha256="ab" * 32,
    created_at=TIME,
    updated_at=TIME,
    finished_at=None,
    error=None,
)


def event(**fields: object) -> Event:
    given: dict[str, object] = {
        "id": "evt_1",
        "position": Position(1, 1),
        "type": EventType.ACCEPTED,
        "happened_at": TIME,
        "image_id": IMAGE.id,
        "image": IMAGE,
        "facts": {},
    }
    return Event(**{**given, **fields})  # type: ignore[arg-type]


def test_event_of_an_image_has_the_images_document_and_the_uploads_metadata() -> None:
    document = json.loads(encode_event(event(metadata='{"user": 7}'), URLS, Recipes()))
    status = json.loads(image_status(IMAGE, URLS, Recipes()).model_dump_json(by_alias=True))
    assert document == {
        "type": "image.accepted",
        "timestamp": "2026-11-28T12:00:00Z",
        "data": {**status, "metadata": '{"user": 7}'},
    }


@pytest.mark.parametrize(
    ("kind", "facts"),
    [(EventType.WEBHOOK_DISABLED, {"reason": "It answered 410."}), (EventType.WEBHOOK_TEST, {})],
)
def test_event_about_an_endpoint_has_its_facts(kind: EventType, facts: dict[str, str]) -> None:
    shown = {"id": str(DATABASE), "url": "https://x.example", **facts}
    about = event(type=kind, image=None, image_id=None, facts={**shown, "secret": "whsec_x"})
    assert json.loads(encode_event(about, URLS, Recipes()))["data"] == shown


@pytest.mark.parametrize("position", [Position(0, 1), Position(731, 42), Position(2**62, 2**62)])
def test_id_names_the_position(position: Position) -> None:
    assert position_of(event_id(DATABASE, position), DATABASE) == position


@pytest.mark.parametrize("text", ["", "evt_6b7c8d9e_1", "evt_6b7c8d9e_1_2\n", "evt_00000000_1_2", "x" * 10_000])
def test_other_ids_name_none(text: str) -> None:
    assert position_of(text, DATABASE) is None
