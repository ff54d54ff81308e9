"""Repeated uploads under one Idempotency-Key create one image."""

import asyncio
from pathlib import Path

import httpx
import pytest

from harness.api import (
    JPEG,
    PNG,
    Api,
    UnavailableQueue,
    accepted,
    api_on,
    claimed,
    complete,
    fail,
    finish,
    problem,
    status_of,
    upload,
)
from harness.forms import CONTENT_TYPE, form, part
from harness.images import encoded, gradient, png_header

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
REPLAYED = "Image was uploaded before, under the same Idempotency-Key"


def assert_replay(answer: httpx.Response, image_id: str, status: str) -> None:
    """Asserts that the response is that of the existing image."""
    assert answer.status_code == 202
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.headers["location"] == f"/images/{image_id}"
    assert answer.json() == {"id": image_id, "status": status, "message": REPLAYED}


async def assert_one_image(api: Api, content: bytes = PNG) -> None:
    """Asserts that there is one image with one file, and nothing in the scratch directory."""
    assert len((await api.client.get("/images")).json()["images"]) == 1
    assert [path.read_bytes() for path in api.originals] == [content]
    assert not api.scratch


async def test_first_upload_under_a_key_is_accepted(api: Api) -> None:
    answer = await upload(api, key=KEY)
    assert answer.status_code == 202
    assert "idempotent-replayed" not in answer.headers
    assert answer.json()["message"] == "Image uploaded successfully and queued for processing"
    assert await api.depth() == 1
    await assert_one_image(api)


async def test_repeated_upload_returns_the_same_image(api: Api) -> None:
    image_id = await accepted(api, key=KEY)
    for _ in range(3):
        assert_replay(await upload(api, key=KEY), image_id, "PROCESSING")
    await assert_one_image(api)
    assert await api.depth() == 1


async def test_file_name_and_type_do_not_affect_the_key(api: Api) -> None:
    image_id = await accepted(api, key=KEY)
    assert_replay(await upload(api, PNG, "other.jpg", "text/plain", key=KEY), image_id, "PROCESSING")


async def test_repeated_upload_returns_the_present_status(api: Api) -> None:
    image_id = await accepted(api, key=KEY)
    claim = await claimed(api, image_id)
    assert_replay(await upload(api, key=KEY), image_id, "PROCESSING")
    await complete(api, claim)
    assert_replay(await upload(api, key=KEY), image_id, "DONE")
    assert (await api.client.post(f"/images/{image_id}/reprocess")).status_code == 202
    assert_replay(await upload(api, key=KEY), image_id, "PROCESSING")
    await fail(api, image_id)
    assert_replay(await upload(api, key=KEY), image_id, "ERROR")
    await assert_one_image(api)


async def test_repeated_upload_of_an_unqueued_image(database_url: str, tmp_path: Path) -> None:
    async with api_on(database_url, tmp_path, UnavailableQueue()) as api:
        image_id = await accepted(api, key=KEY)
        assert_replay(await upload(api, key=KEY), image_id, "NEW")
        await assert_one_image(api)


async def test_other_file_under_the_same_key_is_refused(api: Api) -> None:
    image_id = await accepted(api, PNG, key=KEY)
    problem(await upload(api, JPEG, key=KEY), 422, "idempotency-key-reused")
    await finish(api, image_id)
    problem(await upload(api, JPEG, key=KEY), 422, "idempotency-key-reused")
    assert_replay(await upload(api, PNG, key=KEY), image_id, "DONE")
    await assert_one_image(api)


async def test_same_file_under_other_keys_creates_images(api: Api) -> None:
    ids = [await accepted(api, key=key) for key in (None, "a", "A", "a b", "a,b", None)]
    assert len(set(ids)) == 6
    assert await api.depth() == 6


async def test_quoted_and_bare_key_are_the_same(api: Api) -> None:
    image_id = await accepted(api, key=f'"{KEY}"')
    assert_replay(await upload(api, key=KEY), image_id, "PROCESSING")
    assert_replay(await upload(api, key=f'"{KEY}"'), image_id, "PROCESSING")


@pytest.mark.parametrize("key", ["k" * 255, '"' + "k" * 255 + '"', "%00", "'; drop table images --", "{}", "\\x"])
async def test_printable_key_of_up_to_255_characters_is_accepted(api: Api, key: str) -> None:
    image_id = await accepted(api, key=key)
    assert_replay(await upload(api, key=key), image_id, "PROCESSING")
    problem(await upload(api, JPEG, key=key), 422, "idempotency-key-reused")


@pytest.mark.parametrize("key", ["", '""', "k" * 256, '"' + "k" * 256 + '"', "a\tb"])
async def test_invalid_key_is_refused_and_nothing_is_stored(sqlite_api: Api, key: str) -> None:
    problem(await upload(sqlite_api, key=key), 400, "invalid-idempotency-key")
    assert not sqlite_api.originals
    assert not sqlite_api.scratch


@pytest.mark.parametrize("values", [["späť".encode()], [b"caf\xe9"], [b"a\0b"], [b"a\x7f"], [b"a", b"b"], [b"a", b"a"]])
async def test_undecodable_or_repeated_key_is_refused(sqlite_api: Api, values: list[bytes]) -> None:
    headers = [(b"Idempotency-Key", value) for value in values]
    answer = await sqlite_api.client.post("/images", files={"file": PNG}, headers=headers)
    problem(answer, 400, "invalid-idempotency-key")
    assert not sqlite_api.originals


async def test_concurrent_uploads_under_one_key_create_one_image(api: Api) -> None:
    answers = await asyncio.gather(*(upload(api, key=KEY) for _ in range(20)))
    assert [answer.status_code for answer in answers] == [202] * 20
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.headers.get("idempotent-replayed", "") for answer in answers) == ["", *["true"] * 19]
    await assert_one_image(api)
    assert await api.depth() == 1


async def test_concurrent_uploads_of_different_files_under_one_key_accept_one(api: Api) -> None:
    contents = [encoded(gradient(20 + number, 20), "PNG") for number in range(20)]
    answers = await asyncio.gather(*(upload(api, content, key=KEY) for content in contents))
    ((winner, content),) = [pair for pair in zip(answers, contents, strict=True) if pair[0].status_code == 202]
    for answer in answers:
        if answer is not winner:
            problem(answer, 422, "idempotency-key-reused")
    await assert_one_image(api, content)
    assert (await status_of(api, winner.json()["id"]))["sha256"]
    assert await api.depth() == 1


async def test_deletion_frees_the_key(api: Api) -> None:
    first = await accepted(api, PNG, key=KEY)
    assert (await api.client.delete(f"/images/{first}")).status_code == 204
    answer = await upload(api, JPEG, key=KEY)
    assert answer.status_code == 202
    assert "idempotent-replayed" not in answer.headers
    assert answer.json()["id"] != first
    await assert_one_image(api, JPEG)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(part(b"")), 400),
        (form(part(PNG, b"photo")), 400),
        (form(part(PNG), part(PNG)), 400),
        (form(part(PNG))[:-20], 400),
        (form(part(PNG + bytes(20_000))), 413),
        (form(part(b"no image")), 415),
        (form(part(PNG[:20])), 422),
        (form(part(png_header(1000, 1000))), 422),
    ],
)
async def test_refused_upload_does_not_use_its_key(sqlite_url: str, tmp_path: Path, body: bytes, status: int) -> None:
    async with api_on(sqlite_url, tmp_path, max_file_size=20_000, max_pixels=10_000) as api:
        headers = {"Content-Type": CONTENT_TYPE, "Idempotency-Key": KEY}
        for _ in range(2):
            assert (await api.client.post("/images", content=body, headers=headers)).status_code == status
        answer = await upload(api, key=KEY)
        assert answer.status_code == 202
        assert "idempotent-replayed" not in answer.headers
        await assert_one_image(api)


async def test_upload_during_storage_outage_does_not_use_its_key(sqlite_api: Api) -> None:
    storage = sqlite_api.settings.storage_path
    storage.write_bytes(b"a file, not a directory")
    problem(await upload(sqlite_api, key=KEY), 503, "storage-unavailable")
    storage.unlink()
    assert "idempotent-replayed" not in (await upload(sqlite_api, key=KEY)).headers
    await assert_one_image(sqlite_api)
