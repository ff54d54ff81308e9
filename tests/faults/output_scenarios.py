"""Fault scenarios about recipes, and about outputs that follow while an image is DONE."""

from typing import Final

from harness.broker import purge_queues
from harness.waiting import eventually
from tests.faults.failpoints import ALWAYS, Action, Failpoint
from tests.faults.history import OK
from tests.faults.host import HOUR, Host
from tests.faults.kill_points import PHOTO
from tests.faults.recipes import AVATAR, CHANGED, LATE, write_recipes
from tests.faults.scenario import scenario

LEASE: Final = 61.0
"""Longer than a claim's lease, in seconds."""
LIMIT: Final = 20.0
LOST: Final = "claim lost"
UNKNOWN: Final = "recipe unknown"


@scenario()
async def worker_dies_after_done_with_outputs_to_follow(host: Host) -> None:
    """The worker dies as soon as an image is DONE whose optional outputs are still to be made, and the power fails."""
    dies = Failpoint.at("after complete.commit", Action.KILL)
    await host.start("api")
    await host.start("worker", dies)
    await host.upload_accepted(PHOTO, recipe=LATE)
    await host.wait_for_death("worker", dies)
    await host.lose_power()
    await host.advance_time()
    await host.start_all()


@scenario()
async def worker_resumes_after_its_lease_on_outputs(host: Host) -> None:
    """A worker is stopped between storing and recording late outputs until they are swept and another has the claim."""
    stops = Failpoint.at("after adopt 2", Action.STOP)
    holds = Failpoint.at("before render", Action.HOLD)
    await host.start("api")
    # The broker delivers the requeued message to it, too, until its heartbeat is missed.
    first = await host.start("worker-1", stops, RABBITMQ_URL=f"{host.broker}?heartbeat=1")
    await host.upload_accepted(PHOTO, recipe=LATE)
    await first.wait_until_reached(stops)
    await host.advance_time(LEASE)
    second = await host.start("worker-2", holds)
    await second.wait_until_reached(holds)
    await host.wait_for(lambda snapshot: not any(path.endswith(".2.wide") for path in snapshot.files))
    first.resume()
    await host.wait_for(
        lambda snapshot: LOST in first.log.read_text() or any(len(its) > 1 for its in snapshot.thumbnails.values())
    )
    second.release(holds)


@scenario()
async def reply_to_complete_outputs_is_lost(host: Host) -> None:
    """Late outputs are recorded, but the reply is lost; on retry the worker learns only that its claim is over."""
    await host.start("api")
    await host.start("worker", Failpoint.at("after complete_outputs.commit", Action.FAIL))
    await host.upload_accepted(PHOTO, recipe=LATE)


@scenario()
async def image_changes_while_its_outputs_are_made(host: Host) -> None:
    """An image is deleted, and another gets another recipe, after their late outputs are stored."""
    holds = Failpoint.at("after adopt 2", Action.HOLD)
    await host.start("api")
    for number in (1, 2):
        name = f"worker-{number}"
        worker = await host.start(name, holds)
        image_id = await host.upload_accepted(PHOTO, recipe=LATE)
        await worker.wait_until_reached(holds)
        answer = await (host.delete(image_id) if number == 1 else host.reprocess(image_id, recipe=AVATAR))
        assert answer.outcome == OK, answer
        worker.release(holds)
        await eventually(lambda: LOST in worker.log.read_text(), timeout=LIMIT)  # noqa: B023  (awaited here)
        if number == 1:
            await host.kill(name)


@scenario(MAX_ATTEMPTS="2")
async def outputs_kill_every_worker(host: Host) -> None:
    """Late outputs kill every worker that makes them: in the end the image stays without them."""
    point = Failpoint.at("before render 2", Action.KILL)
    await host.start("api")
    await host.upload_accepted(PHOTO, recipe=LATE)
    for _ in range(2):
        await host.start("worker", point)
        await host.wait_for_death("worker", point)
        await host.advance_time(LEASE)
        point = Failpoint.at("before render", Action.KILL)
    await host.start("worker", Failpoint.at("before render", Action.KILL, times=ALWAYS))


@scenario(UNCLAIMED_AFTER="7200")
async def broker_loses_the_messages_of_late_outputs(host: Host) -> None:
    """The broker loses the message of late outputs long before they are due again."""
    dies = Failpoint.at("before claim_outputs", Action.KILL)
    await host.start("api")
    await host.start("worker", dies)
    await host.upload_accepted(PHOTO, recipe=LATE)
    await host.wait_for_death("worker", dies)
    await purge_queues(host.broker)
    await host.advance_time(HOUR)
    await host.start("worker")


@scenario(MAX_ATTEMPTS="2")
async def worker_does_not_know_the_recipe(host: Host) -> None:
    """One worker has no recipe file, and gets every image first, twice; then there is one that has it."""
    await host.start("api")
    first = await host.start("worker-1", RECIPES_FILE="")
    for recipe in (AVATAR, LATE, None):
        await host.upload_accepted(PHOTO, recipe=recipe)
    for times in (1, 2):
        await eventually(lambda: first.log.read_text().count(UNKNOWN) >= 2 * times, timeout=LIMIT)  # noqa: B023  (awaited here)
        await host.advance_time(LEASE)
    await host.start("worker-2")
    await host.wait_for(lambda snapshot: not snapshot.has_leases())
    await host.kill("worker-1")
    await host.advance_time(LEASE)


@scenario(SWEEP_INTERVAL="3600")
async def recipe_changes(host: Host) -> None:
    """A recipe changes, and a backfill has its outputs made again; the sweeper does not run."""
    await host.start_all()
    await host.upload_accepted(PHOTO, recipe=LATE)
    await host.wait_for(lambda snapshot: all(row["recipe"] is not None for row in snapshot.images.values()))
    await host.stop_all()
    write_recipes(host.folder, CHANGED)
    await host.begin_backfill()
    await host.start_all()
    await host.upload_accepted(PHOTO, recipe=LATE)
    await host.wait_for(lambda snapshot: all(row["recipe"] is not None for row in snapshot.images.values()))
    await host.wait_for(lambda snapshot: all(row["outputs_due_at"] is None for row in snapshot.images.values()))
    await host.advance_time()
