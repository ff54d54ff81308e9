"""API and worker as separate processes on PostgreSQL, RabbitMQ and a server for S3, Google Cloud Storage or Azure."""

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import httpx
import pytest
from obstore.store import from_url

from harness.fork_server import PROGRAM
from harness.forked import run
from harness.forms import CONTENT_TYPE, form, part
from harness.images import encoded, noise
from harness.pace import Stopwatch, slowness
from harness.proxy import Mode, Proxy
from harness.service import FAST_SETTINGS, Api, Worker, client, done, finished, upload
from harness.waiting import eventually
from image_service.domain.keys import original_key

if TYPE_CHECKING:
    from image_service.storage.objects.client import Store

SIZES = {"100x100", "300x300", "1200x1200"}
FIVE_MEGABYTES = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def photo() -> bytes:
    """An image of slightly more than 5 MB."""
    content = encoded(noise(2800, 2100), "JPEG", quality=96)
    assert FIVE_MEGABYTES < len(content) < 2 * FIVE_MEGABYTES
    return content


@pytest.fixture
def env(
    request: pytest.FixtureRequest, postgres_database_url: str, rabbitmq_url: str, tmp_path: Path
) -> dict[str, str]:
    """The settings of the processes, with the S3 server or the one that a parameter names."""
    return {
        "DATABASE_URL": postgres_database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "STORAGE_PATH": str(tmp_path / "scratch"),
        **request.getfixturevalue(f"{getattr(request, 'param', 's3')}_env"),
        **FAST_SETTINGS,
    }


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def bucket(env: dict[str, str]) -> "Store":
    """Access the bucket directly."""
    return _bucket(env["STORAGE_URL"], frozenset(env.items()))


@cache  # a new client takes 20 ms
def _bucket(url: str, settings: frozenset[tuple[str, str]]) -> "Store":
    access: Any = {  # of the kind that the URL names
        name.lower(): value for name, value in settings if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))
    }
    return cast("Store", from_url(url, config=access, client_options={"allow_http": True}))


def stored(env: dict[str, str]) -> set[str]:
    names = {item["path"] for page in bucket(env).list() for item in page}
    return {name for name in names if not name.startswith(".")}


def kept_in_scratch(env: dict[str, str]) -> list[Path]:
    return list((Path(env["STORAGE_PATH"]) / "scratch").glob("*"))


@pytest.mark.parametrize(
    ("env", "delivery"),
    [("s3", "proxy"), ("s3", "redirect"), ("gcs", "redirect"), ("azure", "redirect")],
    indirect=["env"],
)
async def test_upload_of_five_megabytes_becomes_thumbnails(
    env: dict[str, str], running: ExitStack, tmp_path: Path, fork_server: str, photo: bytes, delivery: str
) -> None:
    api = running.enter_context(Api(tmp_path, env | {"FILES_DELIVERY": delivery}))
    running.enter_context(Worker(tmp_path, env))
    async with client(api.url) as http:
        accepted = await upload(http, photo)
        image = await done(http, accepted["id"])
        assert set(image["thumbnails"]) == SIZES
        for url in (image["original_url"], *image["thumbnails"].values()):
            await expect(http, url, delivery, original=url == image["original_url"])
        original = await http.get(image["original_url"], follow_redirects=True)
        assert original.content == photo
        some = await http.get(image["original_url"], headers={"Range": "bytes=1000-1999"}, follow_redirects=True)
        assert (some.status_code, some.content) == (206, photo[1000:2000])
        etag = f'"{hashlib.sha256(photo).hexdigest()}"'
        assert (await http.get(image["original_url"], headers={"If-None-Match": etag})).status_code == 304
        assert (await http.get("/health")).json()["status"] == "healthy"
        assert len(stored(env)) == 1 + len(SIZES)
        checked = run(fork_server, PROGRAM, "check", folder=tmp_path, environment=os.environ | env)
        assert (checked.returncode, checked.stdout) == (0, "Nothing is wrong.\n"), checked.stderr
        assert (await http.delete(f"/images/{accepted['id']}")).status_code == 204
    assert stored(env) == set()
    assert kept_in_scratch(env) == []


async def expect(http: httpx.AsyncClient, url: str, delivery: str, *, original: bool) -> None:
    """Check that a file is served directly or by redirect, with the right type and headers."""
    answer = await http.get(url)
    if delivery == "redirect":
        assert answer.status_code == 307
        assert answer.headers["cache-control"] == ("private" if original else "public") + ", max-age=240"
        answer = await http.get(answer.headers["location"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content.startswith(b"\xff\xd8\xff")
    assert answer.headers.get("content-disposition", "inline").startswith("attachment" if original else "inline")


async def test_storage_outage_refuses_uploads_in_time_and_delays_rendering(
    env: dict[str, str], running: ExitStack, tmp_path: Path, photo: bytes
) -> None:
    async with Proxy.before(env["AWS_ENDPOINT_URL"]) as way:
        diverted = env | {"AWS_ENDPOINT_URL": way.url(env["AWS_ENDPOINT_URL"])}
        api = running.enter_context(Api(tmp_path, diverted))
        worker = running.enter_context(Worker(tmp_path, diverted))
        async with client(api.url) as http:
            for mode in (Mode.RESET, Mode.BLACK_HOLE):
                worker.hold_decoders()
                accepted = await upload(http, photo)
                way.switch(mode)
                worker.release_decoders()
                watch = Stopwatch()
                refused = await http.post("/images", files={"file": ("photo.jpg", photo)})
                assert (refused.status_code, refused.json()["code"]) == (503, "storage-unavailable")
                assert watch.seconds < 5 + slowness()
                assert (await http.get("/health")).status_code == 503
                way.switch(Mode.PASS)
                (image,) = await finished(http, [accepted["id"]])
                assert image["status"] == "DONE"
            await eventually(lambda: len(stored(env)) == 2 * (1 + len(SIZES)), timeout=30)
    assert kept_in_scratch(env) == []


async def test_aborted_upload_leaves_nothing_in_the_storage(
    env: dict[str, str], running: ExitStack, tmp_path: Path, photo: bytes
) -> None:
    api = running.enter_context(Api(tmp_path, env))
    body = form(part(photo))
    async with client(api.url) as http:

        async def half() -> AsyncIterator[bytes]:
            yield body[: len(body) // 2]
            await eventually(lambda: kept_in_scratch(env))
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await http.post("/images", content=half(), headers={"Content-Type": CONTENT_TYPE})
        await eventually(lambda: not kept_in_scratch(env))
    assert stored(env) == set()


async def test_worker_sweeps_objects_without_a_row(env: dict[str, str], running: ExitStack, tmp_path: Path) -> None:
    orphan, foreign = original_key(uuid4()), "originals/7f/not-one-of-ours"
    await bucket(env).put_async(orphan, b"x")
    await bucket(env).put_async(foreign, b"x")
    running.enter_context(Worker(tmp_path, env | {"ORPHAN_GRACE": "1", "SWEEP_INTERVAL": "0.5"}))
    assert orphan in stored(env), "a worker touches nothing in a storage that no API has used"
    running.enter_context(Api(tmp_path, env))
    await eventually(lambda: stored(env) == {foreign}, timeout=30)
    assert bucket(env).get(".owner").bytes()
