"""The webhook endpoint and the metadata that an upload may name, beside the recipe."""

from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from harness.api import PNG, UNKNOWN, Api, problem
from harness.forms import CONTENT_TYPE, form, part
from harness.rows import recorded_events
from image_service.domain.event import MAX_METADATA, EventType

METADATA = '{"user": 7,\r\n "name": "Zoë 🖼"}'
LONGEST = "é" * (MAX_METADATA // 2)


async def send(api: Api, *parts: bytes, query: str = "", **headers: str) -> Any:  # noqa: ANN401  (the response)
    return await api.client.post(
        f"/images{query}", content=form(*parts), headers={"Content-Type": CONTENT_TYPE, **headers}
    )


def field(name: str, value: str | bytes) -> bytes:
    return part(value.encode() if isinstance(value, str) else value, name.encode(), None)


async def registered(api: Api) -> UUID:
    webhook_id = uuid4()
    async with api.database.transaction() as repositories:
        await repositories.webhooks.add(webhook_id, url="https://example.org/", types=None, secret="whsec_x")  # noqa: S106  (of a test)
    return webhook_id


@pytest.mark.parametrize("place", ["form", "query", "both"])
@pytest.mark.parametrize("metadata", [METADATA, LONGEST, ""])
async def test_options_are_in_the_events_of_the_image(api: Api, place: str, metadata: str) -> None:
    webhook_id = await registered(api)
    given = {"webhook": str(webhook_id), "metadata": metadata}
    fields = [] if place == "query" else [field(name, value) for name, value in given.items()]
    query = "" if place == "form" else "?" + "&".join(f"{name}={quote(value)}" for name, value in given.items())
    answer = await send(api, *fields, part(PNG), query=query)
    assert answer.status_code == 202, answer.text
    [event] = await recorded_events(api.database)
    assert (event.type, event.webhook_id, event.metadata) == (EventType.ACCEPTED, webhook_id, metadata)


async def test_without_options_an_event_has_none(api: Api) -> None:
    assert (await send(api, part(PNG))).status_code == 202
    [event] = await recorded_events(api.database)
    assert (event.webhook_id, event.metadata) == (None, None)


A_WEBHOOK = field("webhook", UNKNOWN)
REFUSED = {
    "unknown endpoint": ([A_WEBHOOK, part(PNG)], "", "unknown-webhook"),
    "unknown endpoint in the query": ([part(PNG)], f"?webhook={UNKNOWN}", "unknown-webhook"),
    "no id": ([field("webhook", "x"), part(PNG)], "", "unknown-webhook"),
    "empty id": ([part(PNG)], "?webhook=", "unknown-webhook"),
    "long id": ([field("webhook", "0" * 5000), part(PNG)], "", "unknown-webhook"),
    "two endpoints": ([A_WEBHOOK, part(PNG)], f"?webhook={uuid4()}", "option-conflict"),
    "endpoint after the file": ([part(PNG), A_WEBHOOK], "", "option-after-file"),
    "long metadata": ([field("metadata", LONGEST + "x"), part(PNG)], "", "metadata-too-large"),
    "long metadata in the query": ([part(PNG)], f"?metadata={'x' * (MAX_METADATA + 1)}", "metadata-too-large"),
    "NUL": ([field("metadata", "a\0b"), part(PNG)], "", "invalid-metadata"),
    "NUL in the query": ([part(PNG)], "?metadata=%00", "invalid-metadata"),
    "no UTF-8": ([field("metadata", b"\xff"), part(PNG)], "", "invalid-metadata"),
    "two texts": ([field("metadata", "a"), field("metadata", "b"), part(PNG)], "", "option-conflict"),
    "two texts in the query": ([part(PNG)], "?metadata=a&metadata=b", "option-conflict"),
    "metadata after the file": ([part(PNG), field("metadata", "a")], "", "option-after-file"),
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_other_options_are_refused_and_nothing_stored(sqlite_api: Api, refused: str) -> None:
    parts, query, code = REFUSED[refused]
    assert len(problem(await send(sqlite_api, *parts, query=query), 422, code)["detail"]) < 300
    described = sqlite_api.app.openapi()["paths"]["/images"]["post"]["responses"]["422"]
    assert code in described["content"]["application/problem+json"]["examples"]
    assert not sqlite_api.originals
    assert not sqlite_api.scratch
    assert await recorded_events(sqlite_api.database) == []


async def test_unknown_endpoint_is_refused_before_the_file_is_read(sqlite_api: Api) -> None:
    text = part(b"no image" * 10_000)
    problem(await send(sqlite_api, A_WEBHOOK, text), 422, "unknown-webhook")
    problem(await send(sqlite_api, text, query="?webhook=x"), 422, "unknown-webhook")


async def test_repeated_upload_keeps_the_options_of_the_first(sqlite_api: Api) -> None:
    key = {"Idempotency-Key": "k"}
    assert (await send(sqlite_api, field("metadata", "first"), part(PNG), **key)).status_code == 202
    again = await send(sqlite_api, field("metadata", "second"), part(PNG), **key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert [event.metadata for event in await recorded_events(sqlite_api.database)] == ["first"]
