"""The object storage on a real S3 server, while the server or the network fails."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from structlog.testing import capture_logs

from harness.images import encoded, noise
from harness.pace import Stopwatch
from harness.plain_http import NO_TLS
from harness.proxy import Mode, Proxy
from harness.s3 import SeaweedServer, environment, make_bucket
from harness.service import FAST_SETTINGS, Api, client
from harness.waiting import eventually
from image_service.errors import ObjectMissing, StartError, StorageUnavailable
from image_service.ports import ObjectAttributes
from image_service.storage.objects import ObjectStorage

BUCKET = "own"
KEY = "originals/7f/0190"
DIGEST = hashlib.sha256(b"small").hexdigest()
LIMIT = 8.0
MEGABYTE = 2**20
LARGE = 15 * MEGABYTE + 1234
LARGEST = 2**30

MakeStorage = Callable[..., ObjectStorage]


@pytest.fixture
async def proxy(own_s3: SeaweedServer) -> AsyncIterator[Proxy]:
    """A proxy between the storage and its server."""
    make_bucket(own_s3.url, BUCKET)
    async with Proxy.before(own_s3.url) as proxy:
        yield proxy


@pytest.fixture
def make_storage(own_s3: SeaweedServer, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStorage:
    for name, value in environment(proxy.url(own_s3.url)).items():
        monkeypatch.setenv(name, value)

    def make_storage(url: str = f"s3://{BUCKET}/{uuid4().hex}", largest_copy: int = LARGEST) -> ObjectStorage:
        return ObjectStorage.at(url, tmp_path / "storage", limit=LIMIT, largest_copy=largest_copy)

    return make_storage


@pytest.fixture
def storage(make_storage: MakeStorage) -> ObjectStorage:
    return make_storage()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that takes a while."""
    file = tmp_path / "large"
    file.write_bytes(os.urandom(LARGE))
    return file


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small"
    file.write_bytes(b"small")
    return file


async def get(storage: ObjectStorage, key: str = KEY) -> bytes:
    return b"".join([piece async for piece in storage.read(key)])


async def keys(storage: ObjectStorage) -> list[str]:
    return [item.key async for item in storage.list("")]


async def works(storage: ObjectStorage) -> bool:
    """Whether files can be stored: a server that has just started may have no space for this bucket yet."""
    try:
        await storage.probe()
    except StorageUnavailable:
        return False
    return True


async def begin(storage: ObjectStorage, file: Path, proxy: Proxy) -> "asyncio.Task[None]":
    """Start an upload; returns once the server has a part of the file."""
    proxy.delay = 0.002
    proxy.switch(Mode.DELAY)
    storing = asyncio.create_task(storage.adopt({KEY: file}))
    await eventually(lambda: proxy.forwarded > MEGABYTE)
    assert not storing.done()
    return storing


async def test_large_file_is_uploaded_in_one_request_and_read_back(
    storage: ObjectStorage, large: Path, own_s3: SeaweedServer, proxy: Proxy
) -> None:
    storing = await begin(storage, large, proxy)
    assert own_s3.parts(BUCKET) == []
    proxy.switch(Mode.PASS)
    await storing
    assert await get(storage) == await asyncio.to_thread(large.read_bytes)


async def test_killed_api_leaves_neither_parts_nor_objects(
    postgres_database_url: str,
    rabbitmq_url: str,
    make_storage: MakeStorage,
    own_s3: SeaweedServer,
    proxy: Proxy,
    tmp_path: Path,
) -> None:
    url = f"s3://{BUCKET}/{uuid4().hex}"
    env = {
        "DATABASE_URL": postgres_database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "STORAGE_PATH": str(tmp_path / "scratch"),
        "STORAGE_URL": url,
        "STORAGE_TIMEOUT": "60",
        "MAX_FILE_SIZE": str(32 * MEGABYTE),
        **environment(proxy.url(own_s3.url)),
        **FAST_SETTINGS,
    }
    picture = encoded(noise(64, 64), "JPEG") + bytes(24 * MEGABYTE)  # decoders ignore what follows the image
    with Api(tmp_path, env) as api:
        async with client(api.url) as http:
            proxy.delay = 0.002
            proxy.switch(Mode.DELAY)
            before = proxy.forwarded
            posting = asyncio.create_task(http.post("/images", files={"file": ("photo.jpg", picture)}))
            await eventually(lambda: proxy.forwarded - before > 16 * MEGABYTE)
            await asyncio.to_thread(api.kill)
            with pytest.raises(httpx.HTTPError):
                await posting
    proxy.switch(Mode.PASS)
    assert own_s3.parts(BUCKET) == []
    assert await keys(make_storage(url)) == []


async def test_reset_connection_during_an_upload_leaves_nothing(
    storage: ObjectStorage, large: Path, proxy: Proxy
) -> None:
    storing = await begin(storage, large, proxy)
    proxy.switch(Mode.RESET)
    watch = Stopwatch()
    with pytest.raises(StorageUnavailable):
        await storing
    assert watch.seconds < LIMIT + 1
    proxy.switch(Mode.PASS)
    await eventually(lambda: not storage.uploader.cleanups)
    assert await keys(storage) == []


async def test_silent_network_during_an_upload_leaves_nothing(
    storage: ObjectStorage, large: Path, proxy: Proxy
) -> None:
    storing = await begin(storage, large, proxy)
    proxy.switch(Mode.BLACK_HOLE)
    with pytest.raises(StorageUnavailable):
        await storing
    proxy.switch(Mode.PASS)
    await eventually(lambda: not storage.uploader.cleanups, timeout=20)
    assert await keys(storage) == []


async def test_cancelled_upload_leaves_nothing(storage: ObjectStorage, large: Path, proxy: Proxy) -> None:
    storing = await begin(storage, large, proxy)
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    proxy.switch(Mode.PASS)
    await eventually(lambda: not storage.uploader.cleanups)
    assert await keys(storage) == []


async def test_short_network_failure_is_retried(storage: ObjectStorage, small: Path, proxy: Proxy) -> None:
    proxy.switch(Mode.RESET)
    storing = asyncio.create_task(storage.adopt({KEY: small}))
    tries = proxy.accepted
    await eventually(lambda: proxy.accepted > tries + 1)
    proxy.switch(Mode.PASS)
    await storing
    assert await get(storage) == b"small"


async def test_lost_reply_to_a_put_is_retried(storage: ObjectStorage, small: Path, proxy: Proxy) -> None:
    proxy.fatal = b"PUT "
    proxy.switch(Mode.LOSE_REPLY)
    storing = asyncio.create_task(storage.adopt({KEY: small}))
    await eventually(lambda: proxy.lost)
    proxy.switch(Mode.PASS)
    await storing
    assert await get(storage) == b"small"


async def test_lost_reply_to_binding_is_retried(storage: ObjectStorage, proxy: Proxy) -> None:
    proxy.fatal = b"PUT "
    proxy.switch(Mode.LOSE_REPLY)
    claiming = asyncio.create_task(storage.bind_to_database("one"))
    await eventually(lambda: proxy.lost)
    proxy.switch(Mode.PASS)
    try:
        assert await claiming == "one"
    except StorageUnavailable:
        assert await storage.bind_to_database("one") == "one"
    assert await storage.bind_to_database("other") == "one"


async def test_killed_server_is_an_outage_and_keeps_its_objects(
    storage: ObjectStorage, small: Path, own_s3: SeaweedServer, tmp_path: Path
) -> None:
    await storage.adopt({KEY: small})
    await asyncio.to_thread(own_s3.kill)

    async def fails_in_time(operation: Awaitable[object]) -> None:
        watch = Stopwatch()
        with pytest.raises(StorageUnavailable):
            await operation
        assert watch.seconds < LIMIT + 2

    operations = (
        storage.adopt({"originals/7f/0191": small}),
        get(storage),
        storage.local_path(KEY, tmp_path, DIGEST),
        storage.delete([KEY]),
        keys(storage),
        storage.bind_to_database("one"),
        storage.probe(),
    )
    await asyncio.gather(*map(fails_in_time, operations))
    await asyncio.to_thread(own_s3.start)
    await eventually(lambda: works(storage), timeout=60)
    assert await get(storage) == b"small"
    await eventually(lambda: not storage.uploader.cleanups)
    assert await keys(storage) == [KEY]
    await storage.adopt({"originals/7f/0191": small})
    await storage.delete([KEY])
    assert await keys(storage) == ["originals/7f/0191"]


async def test_missing_bucket_is_an_outage_and_no_missing_object(make_storage: MakeStorage, tmp_path: Path) -> None:
    storage = make_storage("s3://no-such-bucket/x")
    with pytest.raises(StorageUnavailable):
        await get(storage)
    with pytest.raises(StorageUnavailable):
        await storage.local_path(KEY, tmp_path, DIGEST)


async def test_wrong_credentials_are_an_outage_with_the_reason_logged(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with capture_logs() as lines, pytest.raises(StorageUnavailable):
        await make_storage().probe()
    (line,) = lines
    assert line["event"] == "object storage failed"
    assert "403 Forbidden (SignatureDoesNotMatch)" in line["reason"]
    assert "\n" not in line["reason"]
    assert "not-the-secret" not in str(lines)


async def test_object_of_unexpected_size_is_not_copied(make_storage: MakeStorage, small: Path, tmp_path: Path) -> None:
    storage = make_storage(largest_copy=4)
    await storage.adopt({KEY: small})
    with pytest.raises(ObjectMissing):
        await storage.local_path(KEY, tmp_path, DIGEST)
    assert not (tmp_path / "stored").exists()


async def test_presigned_url_serves_the_file_with_its_attributes(storage: ObjectStorage, small: Path) -> None:
    await storage.adopt({KEY: small}, {KEY: ObjectAttributes(content_type="image/png", attachment=True)})
    url = await storage.presign(KEY, method="GET", seconds=60)
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        answer = await client.get(url)
        assert (answer.status_code, answer.content) == (200, b"small")
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"] == "attachment"
        part = await client.get(url, headers={"Range": "bytes=1-2"})
        assert (part.status_code, part.content) == (206, b"ma")
        assert (await client.get(url.replace("0190", "0191"))).status_code == 403
        assert (await client.put(url, content=b"x")).status_code == 403
        head = await client.head(await storage.presign(KEY, method="HEAD", seconds=60))
        assert (head.status_code, head.headers["content-length"]) == (200, "5")
    with pytest.raises(ValueError, match="not a storage key"):
        await storage.presign("../x", method="GET", seconds=60)


def test_unusable_storage_url_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no url")
    with pytest.raises(StartError, match=r"^The object storage cannot be used: .*Check STORAGE_URL"):
        ObjectStorage.at("az://container", tmp_path, limit=1, largest_copy=1)


async def test_memory_is_bounded(own_s3: SeaweedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bucket(own_s3.url, BUCKET)
    for name, value in environment(own_s3.url).items():
        monkeypatch.setenv(name, value)
    storage = ObjectStorage.at(f"s3://{BUCKET}/flat", tmp_path, limit=60, largest_copy=LARGEST)
    usual, huge = tmp_path / "usual", tmp_path / "huge"
    usual.write_bytes(os.urandom(10 * MEGABYTE))
    huge.write_bytes(os.urandom(48 * MEGABYTE))
    await storage.probe()
    with peak_growth() as growth:
        await storage.adopt({f"originals/7f/{number}": usual for number in range(12)})
    assert growth[0] < 80 * MEGABYTE  # four at a time
    with peak_growth() as growth:
        await storage.adopt({f"originals/80/{number}": huge for number in range(3)})
    assert growth[0] < 96 * MEGABYTE  # one at a time
    digest = hashlib.sha256(huge.read_bytes()).hexdigest()
    with peak_growth() as growth:
        copy = await storage.local_path("originals/80/0", tmp_path, digest)
    assert growth[0] < 32 * MEGABYTE
    assert copy.stat().st_size == huge.stat().st_size
    with peak_growth() as growth:
        assert sum([len(piece) async for piece in storage.read("originals/80/0")]) == huge.stat().st_size
    assert growth[0] < 32 * MEGABYTE


@contextmanager
def peak_growth() -> Iterator[list[int]]:
    """Yield the peak growth of this process's memory in bytes during the block."""
    process = psutil.Process()
    before = process.memory_info().rss
    growth = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            growth[0] = max(growth[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        done.set()
        watcher.join()
