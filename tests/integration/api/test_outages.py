"""While the database or the broker hangs, every request is answered within six seconds of its last byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from harness.api import PNG, Api, accepted, api_on, finish, problem, status_of, upload
from harness.broker import start
from harness.forms import CONTENT_TYPE, form, part
from harness.pace import Stopwatch
from harness.proxy import Mode, Proxy
from image_service.database.images import ImageRepository
from image_service.database.removals import RemovalRepository
from image_service.database.scheduling import SchedulingRepository
from image_service.ports import Delivery
from image_service.queue.embedded import EmbeddedQueue
from image_service.queue.rabbitmq import RabbitMQQueue

LIMIT = 6.0
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


@dataclass(frozen=True)
class Answered:
    """A response, and how long it took."""

    answer: httpx.Response
    seconds: float


async def timed(asked: Awaitable[httpx.Response]) -> Answered:
    watch = Stopwatch()
    answer = await asked
    return Answered(answer, watch.seconds)


async def answered_in_time(*asked: Awaitable[httpx.Response]) -> list[httpx.Response]:
    """Returns the responses to concurrent requests, each of which must come in time."""
    answered = await asyncio.gather(*map(timed, asked))
    assert max(each.seconds for each in answered) < LIMIT, answered
    return [each.answer for each in answered]


def assert_database_unavailable(answer: httpx.Response) -> None:
    problem(answer, 503, "database-unavailable")
    assert answer.headers["retry-after"] == "5"


@pytest.fixture
async def database(postgres_database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy.before(postgres_database_url) as proxy:
        yield proxy


@pytest.fixture
async def api(database: Proxy, postgres_database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """The API on a database that can be made to hang."""
    async with api_on(database.url(postgres_database_url), tmp_path) as api:
        yield api


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncIterator[Proxy]:
    async with Proxy.before(rabbitmq_url) as proxy:
        yield proxy


@pytest.fixture
async def api_with_broker(
    database: Proxy, broker: Proxy, postgres_database_url: str, rabbitmq_url: str, tmp_path: Path
) -> AsyncIterator[Api]:
    """The API on a database and a broker that can both be made to hang."""
    queue = RabbitMQQueue(broker.url(rabbitmq_url), queue_name=f"outages-{uuid4().hex}")
    async with api_on(database.url(postgres_database_url), tmp_path, queue) as api:
        await start(queue)
        yield api


def all_requests(api: Api, image_id: str) -> list[Awaitable[httpx.Response]]:
    """One request of each kind that needs the database."""
    url = f"/images/{image_id}"
    return [
        upload(api),
        upload(api, key=KEY),
        upload(api, key="a new one"),
        api.client.get("/images"),
        api.client.get("/images", params={"status": "DONE", "before": image_id}),
        api.client.get(url),
        api.client.get(f"{url}/original"),
        api.client.get(f"{url}/thumbnails/100x100"),
        api.client.post(f"{url}/reprocess"),
        api.client.delete(url),
    ]


async def test_hanging_database_returns_503_within_six_seconds(api: Api, database: Proxy) -> None:
    image_id = await accepted(api, key=KEY)
    await finish(api, image_id)
    files = [*api.originals, *api.thumbnails]
    database.switch(Mode.BLACK_HOLE)
    for answer in await answered_in_time(*all_requests(api, image_id)):
        assert_database_unavailable(answer)
    assert not api.scratch
    database.switch(Mode.PASS)
    # A statement that hung may still have been executed: a 503 promises nothing. But no file is removed before its row.
    assert set(files) <= {*api.originals, *api.thumbnails}


async def test_more_requests_than_connections_are_answered_in_time(api: Api, database: Proxy) -> None:
    image_id = await accepted(api, key=KEY)
    database.switch(Mode.BLACK_HOLE)
    for answer in await answered_in_time(*(each for _ in range(6) for each in all_requests(api, image_id))):
        assert_database_unavailable(answer)


async def test_health_is_answered_within_three_seconds_while_the_database_hangs(api: Api, database: Proxy) -> None:
    await accepted(api)
    database.switch(Mode.BLACK_HOLE)
    reads = asyncio.gather(*(api.client.get("/images") for _ in range(30)))
    report = await timed(api.client.get("/health"))
    assert report.seconds < 3
    assert report.answer.status_code == 503
    for answer in await reads:
        assert_database_unavailable(answer)


async def test_time_limit_starts_at_the_last_byte_of_the_upload(api: Api, database: Proxy) -> None:
    body = form(part(PNG))
    ended: list[Stopwatch] = []

    async def slow() -> AsyncIterator[bytes]:
        yield body[:80]
        database.switch(Mode.BLACK_HOLE)
        for at in range(80, len(body)):
            await asyncio.sleep(3 / len(body))
            yield body[at : at + 1]
        ended.append(Stopwatch())

    for key in ({}, {"Idempotency-Key": KEY}):
        database.switch(Mode.PASS)
        assert (await api.client.get("/images")).status_code == 200
        answer = await api.client.post("/images", content=slow(), headers={"Content-Type": CONTENT_TYPE, **key})
        assert ended[-1].seconds < LIMIT
        assert_database_unavailable(answer)
        assert not api.scratch


@asynccontextmanager
async def hang_in(
    monkeypatch: pytest.MonkeyPatch, repository: type, query: str, *proxies: Proxy, after: float = 0
) -> AsyncIterator[None]:
    """Makes a query hang, after a delay of ``after`` seconds."""
    owner = next(each for each in repository.__mro__ if query in vars(each))
    original: Callable[..., Awaitable[object]] = getattr(owner, query)

    async def hang(*args: object, **options: object) -> object:
        await asyncio.sleep(after)
        for proxy in proxies:
            proxy.switch(Mode.BLACK_HOLE)
        return await original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, query, hang)
        yield


@pytest.mark.parametrize("query", ["by_idempotency_key", "add"])
@pytest.mark.parametrize("after", [0.0, 2.5])
async def test_database_hang_during_an_upload_returns_503(
    api: Api, database: Proxy, monkeypatch: pytest.MonkeyPatch, query: str, after: float
) -> None:
    async with hang_in(monkeypatch, ImageRepository, query, database, after=after):
        (answer,) = await answered_in_time(upload(api, key=KEY))
    assert_database_unavailable(answer)
    database.switch(Mode.PASS)
    assert (await upload(api, key=KEY)).status_code == 202
    assert len((await api.client.get("/images")).json()["images"]) == 1


@pytest.mark.parametrize("after", [0.0, 2.5])
async def test_database_hang_after_the_image_is_recorded_returns_202_new(
    api: Api, database: Proxy, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    async with hang_in(monkeypatch, SchedulingRepository, "mark_queued", database, after=after):
        (answer,) = await answered_in_time(upload(api, key=KEY))
    assert (answer.status_code, answer.json()["status"]) == (202, "NEW")
    database.switch(Mode.PASS)
    assert (await status_of(api, answer.json()["id"]))["original_url"]


@pytest.mark.parametrize("seconds", [2.5, 4.5])
async def test_slow_broker_and_hanging_database_return_202_new(
    database: Proxy, postgres_database_url: str, tmp_path: Path, seconds: float
) -> None:
    class SlowQueue(EmbeddedQueue):
        async def publish(self, delivery: Delivery) -> None:
            await asyncio.sleep(seconds)
            database.switch(Mode.BLACK_HOLE)
            await super().publish(delivery)

    async with api_on(database.url(postgres_database_url), tmp_path, SlowQueue()) as api:
        (answer,) = await answered_in_time(upload(api))
        assert (answer.status_code, answer.json()["status"]) == (202, "NEW")
        database.switch(Mode.PASS)
        await finish(api, answer.json()["id"])
        (answer,) = await answered_in_time(api.client.post(f"/images/{answer.json()['id']}/reprocess"))
        assert (answer.status_code, answer.json()["status"]) == (202, "NEW")


@pytest.mark.parametrize("query", ["get", "reprocess", "remove"])
async def test_database_hang_during_other_requests_returns_503(
    api: Api, database: Proxy, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    url = f"/images/{image_id}"
    asked = {
        "get": api.client.get(url),
        "reprocess": api.client.post(f"{url}/reprocess"),
        "remove": api.client.delete(url),
    }
    async with hang_in(monkeypatch, ImageRepository, query, database, after=2.5):
        answers = await answered_in_time(asked.pop(query))
    assert_database_unavailable(answers[0])
    database.switch(Mode.PASS)
    assert (await status_of(api, image_id))["status"] == "DONE"
    assert [(await other).status_code for other in asked.values()]


async def test_database_hang_after_the_deletion_returns_204(
    api: Api, database: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = ImageRepository.remove

    async def remove_slowly(repository: ImageRepository, image_ids: Collection[UUID]) -> list[str]:
        await asyncio.sleep(2.5)  # a slow database: most of the request's time is used up before it hangs
        return await removed(repository, image_ids)

    async def hang(_repository: RemovalRepository, _keys: Collection[str]) -> None:
        database.switch(Mode.BLACK_HOLE)
        await _repository.due(limit=1)

    image_id = await accepted(api)
    monkeypatch.setattr(ImageRepository, "remove", remove_slowly)
    monkeypatch.setattr(RemovalRepository, "done", hang)
    (answer,) = await answered_in_time(api.client.delete(f"/images/{image_id}"))
    assert answer.status_code == 204
    database.switch(Mode.PASS)
    problem(await api.client.get(f"/images/{image_id}"), 404, "image-not-found")


async def test_database_hang_after_reprocessing_is_recorded_returns_202_new(
    api: Api, database: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    async with hang_in(monkeypatch, SchedulingRepository, "mark_queued", database, after=2.5):
        (answer,) = await answered_in_time(api.client.post(f"/images/{image_id}/reprocess"))
    assert (answer.status_code, answer.json()["status"]) == (202, "NEW")
    database.switch(Mode.PASS)
    # The statement may have reached the database or not: both are correct.
    assert (await status_of(api, image_id))["status"] in {"NEW", "PROCESSING"}


async def test_hanging_broker_delays_uploads_only(api_with_broker: Api, broker: Proxy) -> None:
    api = api_with_broker
    first = await accepted(api, key=KEY)
    await finish(api, first)
    broker.switch(Mode.BLACK_HOLE)
    url = f"/images/{first}"
    plain, keyed, repeated, again, listed, status, original = await answered_in_time(
        upload(api),
        upload(api, key="a new one"),
        upload(api, key=KEY),
        api.client.post(f"{url}/reprocess"),
        api.client.get("/images"),
        api.client.get(url),
        api.client.get(f"{url}/original"),
    )
    for answer in (plain, keyed, again):
        assert (answer.status_code, answer.json()["status"]) == (202, "NEW")
    assert (repeated.status_code, repeated.headers["idempotent-replayed"]) == (202, "true")
    assert [answer.status_code for answer in (listed, status, original)] == [200] * 3
    (repeated_meanwhile, deleted) = await answered_in_time(upload(api, key="a new one"), api.client.delete(url))
    assert repeated_meanwhile.json()["id"] == keyed.json()["id"]
    assert deleted.status_code == 204
    report = await timed(api.client.get("/health"))
    assert report.seconds < 3
    assert (report.answer.status_code, report.answer.json()["status"]) == (200, "degraded")
    assert report.answer.json()["waiting"] is None


async def test_hanging_database_and_broker_return_503_in_time(
    api_with_broker: Api, database: Proxy, broker: Proxy
) -> None:
    api = api_with_broker
    image_id = await accepted(api, key=KEY)
    await finish(api, image_id)
    database.switch(Mode.BLACK_HOLE)
    broker.switch(Mode.BLACK_HOLE)
    for answer in await answered_in_time(*all_requests(api, image_id)):
        assert_database_unavailable(answer)
    report = await timed(api.client.get("/health"))
    assert report.seconds < 3
    assert report.answer.json()["services"] == {"database": False, "rabbitmq": False, "storage": True}


async def test_database_and_broker_hang_after_the_image_is_recorded_returns_202_new(
    api_with_broker: Api, database: Proxy, broker: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = api_with_broker
    published = RabbitMQQueue.publish

    async def publish(queue: RabbitMQQueue, delivery: Delivery) -> None:
        database.switch(Mode.BLACK_HOLE)
        broker.switch(Mode.BLACK_HOLE)
        await published(queue, delivery)

    with monkeypatch.context() as patch:
        patch.setattr(RabbitMQQueue, "publish", publish)
        (answer,) = await answered_in_time(upload(api, key=KEY))
    assert (answer.status_code, answer.json()["status"]) == (202, "NEW")
    database.switch(Mode.PASS)
    broker.switch(Mode.PASS)
    (repeated,) = await answered_in_time(upload(api, key=KEY))
    assert repeated.json()["id"] == answer.json()["id"]
