"""Deliveries are encoded as messages and decoded again; anything else is refused."""

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.ports import Delivery
from image_service.queue.messages import UndecodableMessage, correlation_id, decode, encode, headers

IMAGE_ID = UUID("01900000-0000-7000-8000-000000000001")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_body_has_a_version_and_an_image_id_only() -> None:
    body = encode(Delivery(image_id=IMAGE_ID, request_id="r-1"))
    assert body == b'{"v":1,"image_id":"01900000-0000-7000-8000-000000000001"}'


@given(image_id=st.uuids(), request_id=st.none() | st.text(st.characters(codec="utf-8"), max_size=60))
def test_encoded_delivery_decodes_to_itself(image_id: UUID, request_id: str | None) -> None:
    delivery = Delivery(image_id=image_id, request_id=request_id)
    assert decode(encode(delivery), correlation_id(delivery)) == delivery


@given(request_id=st.text())
def test_correlation_id_fits_an_amqp_short_string(request_id: str) -> None:
    carried = correlation_id(Delivery(image_id=IMAGE_ID, request_id=request_id * 50))
    assert carried is not None
    assert len(carried.encode()) <= 255


unknown = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(version=st.integers(min_value=1), added=st.dictionaries(st.text(), unknown))
def test_fields_of_later_versions_are_ignored(version: int, added: dict[str, object]) -> None:
    body = json.dumps({**added, "v": version, "image_id": str(IMAGE_ID)}).encode()
    assert decode(body) == Delivery(image_id=IMAGE_ID)


def test_body_is_readable_by_every_version() -> None:
    """The contract between versions: an integer ``v`` and a text ``image_id``."""
    body = json.loads(encode(Delivery(image_id=IMAGE_ID)))
    assert body["v"] >= 1
    assert UUID(body["image_id"]) == IMAGE_ID


def test_trace_is_a_header() -> None:
    delivery = Delivery(image_id=IMAGE_ID, trace=TRACE)
    assert headers(delivery) == {"traceparent": TRACE}
    assert headers(Delivery(image_id=IMAGE_ID)) == {}
    assert decode(encode(delivery), headers=headers(delivery)) == delivery
    assert decode(encode(delivery), headers={"traceparent": b"\xff", "x-delivery-count": 1}).trace is None


def test_correlation_id_that_is_not_text_is_ignored() -> None:
    assert decode(encode(Delivery(image_id=IMAGE_ID)), b"\xff").request_id is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"null",
        b"[1]",
        b"{}",
        b'{"image_id":"01900000-0000-7000-8000-000000000001"}',
        b'{"v":0,"image_id":"01900000-0000-7000-8000-000000000001"}',
        b'{"v":-1,"image_id":"01900000-0000-7000-8000-000000000001"}',
        b'{"v":1.0,"image_id":"01900000-0000-7000-8000-000000000001"}',
        b'{"v":null,"image_id":"01900000-0000-7000-8000-000000000001"}',
        b'{"v":"1","image_id":"01900000-0000-7000-8000-000000000001"}',
        b'{"v":true,"image_id":"01900000-0000-7000-8000-000000000001"}',
        b'{"v":1}',
        b'{"v":2}',
        b'{"v":2,"image":"01900000-0000-7000-8000-000000000001"}',
        b'{"v":1,"image_id":null}',
        b'{"v":1,"image_id":7}',
        b'{"v":1,"image_id":"7"}',
        b'{"v":1,"image_id":["01900000-0000-7000-8000-000000000001"]}',
        b'{"v":' + b"9" * 10_000 + b"}",
    ],
)
def test_invalid_body_is_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableMessage):
        decode(body)


@given(body=st.binary(max_size=200))
def test_random_bytes_are_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableMessage):
        decode(body)
