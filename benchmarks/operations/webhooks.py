"""Shows what is sent to webhook endpoints of every kind, and when: good, dead, hanging, failing and busy ones.

    python -m benchmarks.operations.webhooks               or with: --endpoints 100 --events 20

First, one dead and one hanging endpoint among good ones, beside a run in which all are good: every good endpoint has
every event before the first attempt at the hanging one has timed out. Then one endpoint of each kind with the real
schedule of retries, for some seconds. Real PostgreSQL, real HTTP on loopback. Exits with 1 if a good endpoint lacks an
event.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from standardwebhooks import Webhook as Verifier

from harness.receiver import GONE, HANG, OK, Received, Receiver, Reply, busy, redirect
from harness.rows import recorded
from harness.servers import PostgresServer, new_folder
from harness.webhooks import closed_port, deliveries_of, delivering, registered
from image_service.database import Database
from image_service.database.migrations import upgrade
from image_service.domain.event import EventType
from image_service.domain.webhook import Webhook

TIMEOUT: Final = 60.0
"""Seconds in which an endpoint must answer (WEBHOOK_TIMEOUT)."""
ANSWER: Final = 3.0
"""The same where one endpoint of each kind is shown."""
WATCHED: Final = 14.0
"""Seconds for which the endpoints of each kind are watched."""
LIMIT: Final = 120.0
"""Seconds after which the rest counts as missing."""
ACCEPTED: Final = [EventType.ACCEPTED]


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """What came of the events of one run."""

    good: int
    """How many endpoints are good."""
    events: int
    delays: Sequence[float]
    """Milliseconds from recording an event to its arrival, at each good endpoint."""
    hanging: int
    """Requests to the endpoint that hangs, when the last good endpoint had its last event."""
    answered: int
    """How many of these had timed out by then."""
    repeats: int

    @property
    def missing(self) -> int:
        """Deliveries that good endpoints lack."""
        return self.good * self.events - len(self.delays)


async def crowd(url: str, endpoints: int, events: int, *, all_good: bool) -> Crowd:
    """Send events to endpoints of which one is dead and one hangs, or all of which are good."""
    database = Database(url, time_limit=LIMIT)
    recorded_at: dict[UUID, float] = {}
    good = endpoints if all_good else endpoints - 2
    async with Receiver() as receiver:
        hanging = None
        if not all_good:
            hanging = await registered(database, receiver.script("hanging", HANG), ACCEPTED)
            await registered(database, f"http://127.0.0.1:{closed_port()}/", ACCEPTED)
        for number in range(good):
            await registered(database, receiver.url(f"good-{number}"), ACCEPTED)
        async with delivering(database, timeout=TIMEOUT, poll=1.0) as worker:
            began = time.monotonic()
            for _ in range(events):
                image = await recorded(database)
                recorded_at[image] = receiver.now()
                worker.signal.notify()
                await asyncio.sleep(0.05)
            while len(arrived(receiver)) < good * events and time.monotonic() - began < LIMIT:  # noqa: ASYNC110 — polled
                await asyncio.sleep(0.2)
            requests = len(receiver.at("hanging"))
            waiting = [] if hanging is None else await deliveries_of(database, hanging.id)
    await database.close()
    came = [each for each in receiver.received if each.path != "hanging"]
    return Crowd(
        good=good,
        events=events,
        delays=[1000 * (each.at - recorded_at[UUID(each.document["data"]["id"])]) for each in arrived(receiver)],
        hanging=requests,
        answered=sum(len(each.attempts) for each in waiting),
        repeats=len(came) - len(arrived(receiver)),
    )


def arrived(receiver: Receiver) -> Sequence[Received]:
    """What came to good endpoints, each event once."""
    first: dict[tuple[str, str], Received] = {}
    for each in receiver.received:
        if each.path != "hanging":
            first.setdefault((each.path, each.event_id), each)
    return list(first.values())


async def kinds(url: str) -> None:
    """Send one event to an endpoint of each kind, and print what was sent when."""
    database = Database(url, time_limit=LIMIT)
    async with Receiver() as receiver:
        scripts: Mapping[str, Sequence[Reply]] = {
            "good": [OK],
            "fails once": [Reply(status=500, body=b"a defect"), OK],
            "hangs": [HANG],
            "redirects to 127.0.0.1": [redirect(receiver.url("elsewhere"))],
            "answers 410": [GONE],
            "429, Retry-After: 8": [busy("8"), OK],
        }
        webhooks: dict[str, Webhook] = {}
        for number, (kind, script) in enumerate(scripts.items()):
            webhooks[kind] = await registered(database, receiver.script(str(number), *script), ACCEPTED)
        webhooks["dead"] = await registered(database, f"http://127.0.0.1:{closed_port()}/", ACCEPTED)
        webhooks["a private address"] = await registered(database, "https://10.0.0.1/", ACCEPTED)
        async with delivering(database, timeout=ANSWER, poll=1.0) as worker:
            began = receiver.now()
            await recorded(database)
            worker.signal.notify()
            await asyncio.sleep(WATCHED)
        print(f"One event, in {WATCHED:g} s. Endpoints must answer within {ANSWER:g} s here.\n")
        print("| endpoint | sent after, and the result of each attempt | signature | then |")
        print("|---|---|---|---|")
        for number, (kind, webhook) in enumerate(webhooks.items()):
            (delivery,) = await deliveries_of(database, webhook.id)
            came = receiver.at(str(number))
            results = [str(each.error or each.status) for each in delivery.attempts]
            times = [f"{each.at - began:.2f} s" for each in came] or ["not sent"] * len(results)
            sent = ", ".join(f"{at}: {result}" for at, result in zip(times, results, strict=False))
            verified = (
                "valid" if came and all(is_signed(webhook, each) for each in came) else "-" if not came else "WRONG"
            )
            print(f"| {kind} | {sent} | {verified} | {await follows(database, webhook)} |")
        print(f"\nRequests that followed the redirect: {len(receiver.at('elsewhere'))}.")
    await database.close()


def is_signed(webhook: Webhook, received: Received) -> bool:
    """Returns True; the official library raises an error if a signature is wrong."""
    Verifier(webhook.secret).verify(received.body, dict(received.headers.items()))
    return True


async def follows(database: Database, webhook: Webhook) -> str:
    """Returns what follows for a delivery and its endpoint, in words."""
    (delivery,) = await deliveries_of(database, webhook.id)
    async with database.statement() as repositories:
        now = await repositories.webhooks.get(webhook.id)
    assert now is not None
    if not now.enabled:
        return f"{delivery.status}; endpoint disabled: {now.disabled_reason}"
    if delivery.due_at is None:
        return str(delivery.status)
    last = delivery.attempts[-1].made_at if delivery.attempts else None
    wait = "" if last is None else f", {(delivery.due_at - last).total_seconds():.0f} s after the last attempt"
    return f"{delivery.status}{wait}"


async def compared(server: PostgresServer, endpoints: int, events: int) -> bool:
    """Print both runs side by side; returns whether nothing is missing."""
    print(
        "| endpoints | good deliveries | missing | repeats | p50 | p95 | last | sent to the hanging one | timed out |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    complete = True
    for all_good in (True, False):
        url = server.create_database(f"crowd_{all_good}".lower())
        await asyncio.to_thread(upgrade, url)
        found = await crowd(url, endpoints, events, all_good=all_good)
        delays = sorted(found.delays)
        spread = [statistics.median(delays), delays[int(0.95 * len(delays))], delays[-1]]
        shown = " | ".join(f"{each:.0f} ms" for each in spread)
        who = f"{found.good} good" + ("" if all_good else ", 1 dead, 1 hanging")
        beside = "- | -" if all_good else f"{found.hanging} | {found.answered}"
        print(f"| {who} | {len(delays)} | {found.missing} | {found.repeats} | {shown} | {beside} |")
        complete = complete and not found.missing
    print()
    return complete


async def main(endpoints: int, events: int) -> bool:
    """Print everything; returns whether nothing is missing."""
    with PostgresServer(new_folder()) as server:
        complete = await compared(server, endpoints, events)
        url = server.create_database("kinds")
        await asyncio.to_thread(upgrade, url)
        await kinds(url)
    return complete


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=100, choices=range(3, 101), metavar="3-100")
    parser.add_argument("--events", type=int, default=20)
    chosen = parser.parse_args()
    sys.exit(0 if asyncio.run(main(chosen.endpoints, chosen.events)) else 1)
