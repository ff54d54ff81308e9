"""Events on the exchange, read with the official library's binding for RabbitMQ."""

import json
from dataclasses import replace
from uuid import UUID

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event

from image_service.documents.cloudevent import encode_cloudevent
from image_service.documents.event import encode_event
from image_service.documents.urls import Urls
from image_service.domain.event import EventType
from image_service.domain.recipe import Recipes
from image_service.ports import EncodedEvent
from tests.unit.documents.test_event import IMAGE, TIME, event

PUBLIC = "https://img.example.org"


def received(encoded: EncodedEvent) -> BaseCloudEvent:
    return from_rabbitmq_event(RabbitMQMessage(headers={}, content_type=encoded.content_type, body=encoded.body))


def test_event_is_a_cloudevent_with_the_data_of_a_webhook() -> None:
    accepted = event(metadata="x")
    encoded = encode_cloudevent(accepted, Urls(PUBLIC), Recipes(), source=PUBLIC)
    assert (encoded.id, encoded.topic, encoded.subject) == ("evt_1", "image.accepted", str(IMAGE.id))
    shown = received(encoded)
    assert shown.get_attributes() == {
        "specversion": "1.0",
        "id": "evt_1",
        "source": PUBLIC,
        "type": "image.accepted",
        "subject": str(IMAGE.id),
        "time": TIME,
        "datacontenttype": "application/json",
    }
    assert shown.get_data() == json.loads(encode_event(accepted, Urls(PUBLIC), Recipes()))["data"]


def test_service_without_a_public_url_has_a_source_too() -> None:
    shown = received(encode_cloudevent(event(), Urls(""), Recipes(), source=None))
    assert shown.get_source() == "/image-service"
    data = shown.get_data()
    assert isinstance(data, dict)
    assert data["original_url"].startswith("/images/")


@pytest.mark.parametrize(
    ("kind", "facts"),
    [(EventType.WEBHOOK_DISABLED, {"reason": "It answered 410."}), (EventType.WEBHOOK_TEST, {})],
)
def test_event_about_an_endpoint_has_its_id_as_subject(kind: EventType, facts: dict[str, str]) -> None:
    webhook_id = UUID(int=7)
    told = {"id": str(webhook_id), "url": "https://x.example", **facts}
    encoded = encode_cloudevent(
        replace(event(), type=kind, image=None, image_id=None, facts=told), Urls(""), Recipes(), source=None
    )
    assert (encoded.topic, encoded.subject) == (kind, str(webhook_id))
    assert received(encoded).get_data() == told
