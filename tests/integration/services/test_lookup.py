"""Lookup of images and their files."""

from uuid import UUID, uuid4

import pytest

from harness.fakes import IMAGE
from harness.service_harness import ServiceHarness
from image_service.domain.status import Status
from image_service.errors import DatabaseUnavailable, ImageNotFound, OriginalRemoved
from image_service.ports import Delivery
from image_service.services.lookup import Lookup, StoredThumbnail, Thumbnails


async def in_state(env: ServiceHarness, status: Status) -> UUID:
    if status is Status.NEW:
        return await env.new()
    if status is Status.PROCESSING:
        return await env.queued()
    if status is Status.ERROR:
        claim = await env.claimed()
        await env.fail(claim)
        return claim.image_id
    image_id = await env.queued()
    await env.processing().process(Delivery(image_id=image_id))
    return image_id


async def stored(lookup: Lookup, image_id: UUID, name: str) -> StoredThumbnail:
    (file,) = (await lookup.thumbnails(image_id, name)).files
    return file


@pytest.mark.parametrize("status", Status)
async def test_an_image_and_its_original_are_found_in_every_state(env: ServiceHarness, status: Status) -> None:
    image_id = await in_state(env, status)
    lookup = env.lookup()
    image = await lookup.image(image_id)
    assert (image.id, image.status) == (image_id, status)
    file = await lookup.original(image_id)
    assert (file.name, file.content_type) == (f"{image_id}.png", "image/png")
    assert (file.size_bytes, file.sha256) == (image.size_bytes, image.sha256)
    assert b"".join([piece async for piece in lookup.read(file)]) == IMAGE
    assert b"".join([piece async for piece in lookup.read(file, 1, 3)]) == IMAGE[1:4]


async def test_thumbnails_of_a_done_image_are_found(sqlite_env: ServiceHarness) -> None:
    image_id = await in_state(sqlite_env, Status.DONE)
    lookup = sqlite_env.lookup()
    for made in (await lookup.image(image_id)).thumbnails:
        file = await stored(lookup, image_id, made.output)
        assert (file.name, file.content_type) == (f"{image_id}-{made.output}.jpg", "image/jpeg")
        content = b"".join([piece async for piece in lookup.read(file)])
        assert (len(content), file.sha256) == (file.size_bytes, made.sha256)
        assert content.startswith(made.output.encode())


async def test_an_unknown_preset_or_an_image_never_done_has_no_thumbnail(
    sqlite_env: ServiceHarness,
) -> None:
    lookup = sqlite_env.lookup()
    none = Thumbnails(files=(), negotiable=False)
    assert await lookup.thumbnails(await in_state(sqlite_env, Status.DONE), "99x99") == none
    for status in (Status.NEW, Status.PROCESSING, Status.ERROR):
        assert await lookup.thumbnails(await in_state(sqlite_env, status), "100x100") == none


@pytest.mark.parametrize("status", [Status.NEW, Status.PROCESSING, Status.ERROR])
async def test_thumbnails_of_an_earlier_rendering_are_found_in_every_state(env: ServiceHarness, status: Status) -> None:
    image_id = await env.done()
    await env.reprocess(image_id)
    if status is not Status.NEW:
        claim = await env.claim(image_id)
        if status is Status.ERROR:
            await env.fail(claim)
    assert await env.status(image_id) is status
    file = await stored(env.lookup(), image_id, "100x100")
    assert b"".join([piece async for piece in env.lookup().read(file)]).startswith(b"100x100")


async def test_a_removed_original_differs_from_an_unknown_one(env: ServiceHarness) -> None:
    image_id = await env.done()
    await env.ask(lambda r: r.images.remove_originals([image_id]))
    with pytest.raises(OriginalRemoved):
        await env.lookup().original(image_id)
    assert (await stored(env.lookup(), image_id, "100x100")).sha256
    await env.deletion().delete(image_id)
    with pytest.raises(ImageNotFound):
        await env.lookup().original(image_id)
    assert await env.lookup().find(image_id) is None


async def test_nothing_is_found_under_an_unknown_id(env: ServiceHarness) -> None:
    lookup = env.lookup()
    for found in (lookup.image(uuid4()), lookup.original(uuid4()), lookup.thumbnails(uuid4(), "100x100")):
        with pytest.raises(ImageNotFound):
            await found


async def test_without_the_database_lookup_raises(sqlite_env: ServiceHarness) -> None:
    sqlite_env.script.fail("get", [DatabaseUnavailable])
    with pytest.raises(DatabaseUnavailable):
        await sqlite_env.lookup().image(uuid4())
