"""An upload that is repeated under its Idempotency-Key is one image, however often it comes."""

import asyncio
from pathlib import Path

import httpx
import pytest

from harness.api import (
    JPEG,
    PNG,
    Api,
    QueueThatIsAway,
    accepted,
    api_on,
    claimed,
    complete,
    fail,
    finish,
    problem,
    told,
    upload,
)
from harness.forms import CONTENT_TYPE, form, part
from harness.images import encoded, gradient, png_header

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
REPEATED = "Image was uploaded before, under the same Idempotency-Key"


def replay(answer: httpx.Response, image_id: str, status: str) -> None:
    """The answer tells of the image that there is already."""
    assert answer.status_code == 202
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.headers["location"] == f"/images/{image_id}"
    assert answer.json() == {"id": image_id, "status": status, "message": REPEATED}


async def keep_one(api: Api, content: bytes = PNG) -> None:
    """There is one image, one file, and nothing on its way to be one."""
    assert len((await api.client.get("/images")).json()["images"]) == 1
    assert [path.read_bytes() for path in api.originals] == [content]
    assert not api.scratch


async def test_the_first_upload_under_a_key_is_one_like_any_other(api: Api) -> None:
    answer = await upload(api, key=KEY)
    assert answer.status_code == 202
    assert "idempotent-replayed" not in answer.headers
    assert answer.json()["message"] == "Image uploaded successfully and queued for processing"
    assert await api.depth() == 1
    await keep_one(api)


async def test_the_same_file_again_is_the_same_image(api: Api) -> None:
    image_id = await accepted(api, key=KEY)
    for _ in range(3):
        replay(await upload(api, key=KEY), image_id, "PROCESSING")
    await keep_one(api)
    assert await api.depth() == 1


async def test_its_name_and_type_make_no_difference(api: Api) -> None:
    image_id = await accepted(api, key=KEY)
    replay(await upload(api, PNG, "other.jpg", "text/plain", key=KEY), image_id, "PROCESSING")


async def test_a_repeated_upload_tells_the_status_that_the_image_has_now(api: Api) -> None:
    image_id = await accepted(api, key=KEY)
    claim = await claimed(api, image_id)
    replay(await upload(api, key=KEY), image_id, "PROCESSING")
    await complete(api, claim)
    replay(await upload(api, key=KEY), image_id, "DONE")
    assert (await api.client.post(f"/images/{image_id}/reprocess")).status_code == 202
    replay(await upload(api, key=KEY), image_id, "PROCESSING")
    await fail(api, image_id)
    replay(await upload(api, key=KEY), image_id, "ERROR")
    await keep_one(api)


async def test_a_repeated_upload_of_an_image_that_waits_for_the_queue(database_url: str, tmp_path: Path) -> None:
    async with api_on(database_url, tmp_path, QueueThatIsAway()) as api:
        image_id = await accepted(api, key=KEY)
        replay(await upload(api, key=KEY), image_id, "NEW")
        await keep_one(api)


async def test_another_file_under_the_same_key_is_refused(api: Api) -> None:
    image_id = await accepted(api, PNG, key=KEY)
    problem(await upload(api, JPEG, key=KEY), 422, "idempotency-key-reused")
    await finish(api, image_id)
    problem(await upload(api, JPEG, key=KEY), 422, "idempotency-key-reused")
    replay(await upload(api, PNG, key=KEY), image_id, "DONE")
    await keep_one(api)


async def test_the_same_file_under_other_keys_is_other_images(api: Api) -> None:
    ids = [await accepted(api, key=key) for key in (None, "a", "A", "a b", "a,b", None)]
    assert len(set(ids)) == 6
    assert await api.depth() == 6


async def test_a_key_is_the_same_with_quotes_and_without(api: Api) -> None:
    image_id = await accepted(api, key=f'"{KEY}"')
    replay(await upload(api, key=KEY), image_id, "PROCESSING")
    replay(await upload(api, key=f'"{KEY}"'), image_id, "PROCESSING")


@pytest.mark.parametrize("key", ["k" * 255, '"' + "k" * 255 + '"', "%00", "'; drop table images --", "{}", "\\x"])
async def test_any_printable_key_of_up_to_255_characters_will_do(api: Api, key: str) -> None:
    image_id = await accepted(api, key=key)
    replay(await upload(api, key=key), image_id, "PROCESSING")
    problem(await upload(api, JPEG, key=key), 422, "idempotency-key-reused")


@pytest.mark.parametrize("key", ["", '""', "k" * 256, '"' + "k" * 256 + '"', "a\tb"])
async def test_what_is_no_key_is_refused_and_nothing_kept(sqlite_api: Api, key: str) -> None:
    problem(await upload(sqlite_api, key=key), 400, "invalid-idempotency-key")
    assert not sqlite_api.originals
    assert not sqlite_api.scratch


@pytest.mark.parametrize("values", [["späť".encode()], [b"caf\xe9"], [b"a\0b"], [b"a\x7f"], [b"a", b"b"], [b"a", b"a"]])
async def test_a_key_that_no_ordinary_client_sends_is_refused(sqlite_api: Api, values: list[bytes]) -> None:
    headers = [(b"Idempotency-Key", value) for value in values]
    answer = await sqlite_api.client.post("/images", files={"file": PNG}, headers=headers)
    problem(answer, 400, "invalid-idempotency-key")
    assert not sqlite_api.originals


async def test_of_twenty_at_once_under_one_key_one_is_kept(api: Api) -> None:
    answers = await asyncio.gather(*(upload(api, key=KEY) for _ in range(20)))
    assert [answer.status_code for answer in answers] == [202] * 20
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.headers.get("idempotent-replayed", "") for answer in answers) == ["", *["true"] * 19]
    await keep_one(api)
    assert await api.depth() == 1


async def test_of_twenty_files_at_once_under_one_key_one_is_kept_and_the_others_are_refused(api: Api) -> None:
    contents = [encoded(gradient(20 + number, 20), "PNG") for number in range(20)]
    answers = await asyncio.gather(*(upload(api, content, key=KEY) for content in contents))
    ((winner, content),) = [pair for pair in zip(answers, contents, strict=True) if pair[0].status_code == 202]
    for answer in answers:
        if answer is not winner:
            problem(answer, 422, "idempotency-key-reused")
    await keep_one(api, content)
    assert (await told(api, winner.json()["id"]))["sha256"]
    assert await api.depth() == 1


async def test_once_the_image_is_deleted_its_key_is_free(api: Api) -> None:
    first = await accepted(api, PNG, key=KEY)
    assert (await api.client.delete(f"/images/{first}")).status_code == 204
    answer = await upload(api, JPEG, key=KEY)
    assert answer.status_code == 202
    assert "idempotent-replayed" not in answer.headers
    assert answer.json()["id"] != first
    await keep_one(api, JPEG)


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
async def test_a_refused_upload_does_not_use_its_key_up(
    sqlite_url: str, tmp_path: Path, body: bytes, status: int
) -> None:
    async with api_on(sqlite_url, tmp_path, max_file_size=20_000, max_pixels=10_000) as api:
        headers = {"Content-Type": CONTENT_TYPE, "Idempotency-Key": KEY}
        for _ in range(2):
            assert (await api.client.post("/images", content=body, headers=headers)).status_code == status
        answer = await upload(api, key=KEY)
        assert answer.status_code == 202
        assert "idempotent-replayed" not in answer.headers
        await keep_one(api)


async def test_an_upload_that_could_not_be_stored_does_not_use_its_key_up(sqlite_api: Api) -> None:
    storage = sqlite_api.settings.storage_path
    storage.write_bytes(b"a file, no folder")
    problem(await upload(sqlite_api, key=KEY), 503, "storage-unavailable")
    storage.unlink()
    assert "idempotent-replayed" not in (await upload(sqlite_api, key=KEY)).headers
    await keep_one(sqlite_api)
