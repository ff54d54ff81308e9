"""Fault scenarios about events: recording them, reading the log, and passing it on."""

import asyncio
from contextlib import suppress
from typing import Final

from harness.waiting import eventually
from tests.faults.failpoints import Action, Failpoint
from tests.faults.history import OK
from tests.faults.host import Host
from tests.faults.kill_points import PHOTO
from tests.faults.receiver_set import ReceiverNames
from tests.faults.receivers import EXCHANGE, Answer
from tests.faults.scenario import scenario

STREAM: Final = ReceiverNames(streams=("stream",), pages=(), endpoints={}, queues=())
ENDPOINT: Final = ReceiverNames(streams=(), pages=(), endpoints={"hook": (None, ())}, queues=())
QUEUE: Final = ReceiverNames(streams=(), pages=(), endpoints={}, queues=("bound-queue",))
LIMIT: Final = 20.0
A_READ: Final = 1.5
"""Seconds within which a stream gets an event that nothing holds up."""


@scenario()
async def deletion_commits_late(host: Host) -> None:
    """A deletion has recorded its event, and commits after later events are committed and could be read."""
    holds = Failpoint.at("before remove.commit", Action.HOLD)
    await host.start("worker")
    api = await host.start("api", holds)
    await host.start_receivers(STREAM)
    first = await host.upload_accepted(PHOTO)
    await host.wait_for_state(first, "DONE")
    deletion = asyncio.create_task(host.delete(first))
    await api.wait_until_reached(holds)
    second = await host.upload_accepted(PHOTO)
    with suppress(TimeoutError):  # its event is not settled, so that only a wrong version sends it
        async with asyncio.timeout(A_READ):
            while second not in {each.image_id for each in host.history.received["stream"]}:  # noqa: ASYNC110  (a list)
                await asyncio.sleep(0.02)
    api.release(holds)
    assert (await deletion).outcome == OK


@scenario()
async def stream_resumes_while_something_happens(host: Host) -> None:
    """A client resumes its stream at a new process; while that begins to follow the log, an image is processed."""
    await host.start_all()
    receivers = await host.start_receivers(STREAM)
    (stream,) = receivers.readers
    first = await host.upload_accepted(PHOTO)
    await host.wait_for_state(first, "DONE")
    await eventually(lambda: len(host.history.received["stream"]) == 2, timeout=LIMIT)
    await stream.close()
    await host.kill("api")
    holds = Failpoint.at("before events.head", Action.HOLD)
    api = await host.start("api", holds)
    stream.start()
    await api.wait_until_reached(holds)
    second = await host.upload_accepted(PHOTO)
    await host.wait_for_state(second, "DONE")
    api.release(holds)


@scenario()
async def worker_dies_after_it_created_deliveries(host: Host) -> None:
    """A worker dies as soon as it has noted which events were passed on to webhook endpoints."""
    dies = Failpoint.at("after deliveries.dispatch.commit", Action.KILL)
    await host.start("api")
    await host.start_receivers(ENDPOINT)
    await host.start("worker", dies)
    await host.upload_accepted(PHOTO)
    await host.wait_for_death("worker", dies)
    await host.advance_time()
    await host.start("worker")


@scenario()
async def worker_resumes_after_its_lease_on_a_delivery(host: Host) -> None:
    """A worker is stopped between sending an event and recording that, until another has claimed the delivery."""
    stops, holds = Failpoint.at("after post", Action.STOP), Failpoint.at("before post", Action.HOLD)
    await host.start("api")
    await host.start_receivers(ENDPOINT)
    first = await host.start("worker-1", stops)
    await host.upload_accepted(PHOTO)
    await first.wait_until_reached(stops)
    await host.advance_time()
    second = await host.start("worker-2", holds)
    await second.wait_until_reached(holds)
    first.resume()
    await host.wait_for(lambda snapshot: bool(snapshot.attempts))
    await host.kill("worker-2")
    await host.kill("worker-1")
    await host.advance_time()
    await host.start("worker-3")


@scenario(EVENTS_EXCHANGE=EXCHANGE)
async def worker_dies_after_it_noted_what_is_published(host: Host) -> None:
    """A worker dies as soon as it has noted which events are published to the exchange."""
    dies = Failpoint.at("after events.advance.commit", Action.KILL)
    await host.start("api")
    await host.start_receivers(QUEUE)
    await host.start("worker", dies)
    await host.upload_accepted(PHOTO)
    await host.wait_for_death("worker", dies)
    await host.advance_time()
    await host.start("worker")


@scenario(EVENTS_RETENTION_HOURS="0.0003")
async def events_with_deliveries_to_make_are_old(host: Host) -> None:
    """An endpoint refuses events for longer than events are kept."""
    await host.start_all()
    accepted = ReceiverNames(streams=(), pages=(), endpoints={"hook": (("image.accepted",), ())}, queues=())
    receivers = await host.start_receivers(accepted)
    receivers.endpoints.answer(Answer.FAILS)
    await host.upload_accepted(PHOTO)
    await host.wait_for(lambda snapshot: snapshot.positions["purged"] > (0, 0))
    await eventually(lambda: len(host.history.received["hook"]) > 0, timeout=LIMIT)
