"""Injects faults into a running cluster by a seeded schedule, in several concurrent lanes."""

import asyncio
import json
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import aio_pika
import asyncpg
import psutil
from aio_pika.exceptions import AMQPError

from harness.proxy import Mode
from tests.faults.cluster import APIS, LEASE, WORKERS, Cluster
from tests.faults.evidence import DECODER, QUEUE
from tests.faults.history import Fault, Garbage, History
from tests.faults.workload import Workload

QUIET = 2.0
"""Seconds without faults at the beginning, so that there is work to disturb."""
LONGEST = 1 / 3
"""The longest fault, as a share of the whole run."""
BROKER_REST = 30.0
"""Seconds between two broker restarts: a restart takes up to twelve."""
REPLIES = {"database": b"COMMIT", "broker": b"\x00\x3c\x00\x28"}
"""Bytes that identify a request whose reply is dropped: a commit; the method frame of a publish."""
QUEUES = (QUEUE, f"{QUEUE}.express")
TIMES_DELIVERED = 5
PROMOTED_AFTER = (0.0, 5.0, 30.0)
"""Seconds for which the database's address leads to a standby before it is promoted."""
CLOCK_STEPS = (-3600.0, 3600.0)
"""Errors of a process's clock, in seconds."""
LEASE_STEPS = (-2.0, 3600.0)
"""Jumps of the database's clock, in seconds. Leases use it; a jump back makes them last longer."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A scheduled fault."""

    at: float
    """Seconds after the start; or the end of the previous fault in the same lane, if that is later."""
    kind: str
    subject: str
    seconds: float
    """Duration, for faults that have one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault."""

    name: str
    subjects: Sequence[str]
    lasts: tuple[float, float] = (0.0, 0.0)
    """Minimum and maximum duration in seconds."""
    rest: float = 0.0
    """Seconds from its start during which no other fault with a ``rest`` may start in its lane."""


LINKS = ("api-broker", "api-database", "worker-broker", "worker-database")
LANES: dict[str, tuple[tuple[float, float], Sequence[Kind]]] = {
    "broker": (
        (6.0, 12.0),
        (
            Kind("kill-broker", ("broker",), (0.0, 3.0), rest=BROKER_REST),
            Kind("lose-broker-data", ("broker",), (0.0, 1.0), rest=BROKER_REST),
            Kind("delete-queue", QUEUES),
        ),
    ),
    "database": (
        (3.0, 6.0),
        (
            *(Kind("fail-over", ("database",), (delay, delay)) for delay in PROMOTED_AFTER),
            Kind("read-only-database", ("database",), (2.0, 8.0)),
            Kind("serve-standby", ("database",), (4.0, 10.0)),
            Kind("lose-standby", ("database",), (0.0, 4.0)),
            Kind("kill-database", ("database",), (0.0, 4.0)),
            Kind("restart-database", ("database",)),
            Kind("step-database-clock", [str(step) for step in LEASE_STEPS]),
        ),
    ),
    "processes": (
        (2.0, 5.0),
        (
            Kind("kill-api", APIS, (0.0, 1.0)),
            Kind("kill-worker", WORKERS, (0.0, 1.0)),
            Kind("kill-decoder", WORKERS),
            Kind("pause-worker", WORKERS, (LEASE + 1, LEASE + 3)),
            Kind("restart-api", APIS),
            Kind("restart-worker", WORKERS),
            Kind("step-clock", (*APIS, *WORKERS), (3.0, 6.0)),
            Kind("slow-disk", (*APIS, *WORKERS), (3.0, 6.0)),
        ),
    ),
    "connections": (
        (1.0, 3.0),
        (
            Kind("reset-connections", LINKS, (0.0, 2.0)),
            Kind("delay-connections", LINKS, (2.0, 5.0)),
            Kind("black-hole", LINKS, (1.0, 8.0)),
            Kind("lose-reply", LINKS, (0.5, 2.0)),
        ),
    ),
    "messages": (
        (2.0, 5.0),
        (
            Kind("duplicate-message", QUEUES),
            Kind("garbage-message", QUEUES),
            Kind("future-message", QUEUES),
        ),
    ),
    "disk": ((8.0, 16.0), (Kind("fill-disk", ("disk",), (1.0, 4.0)),)),
}
"""By lane: minimum and maximum seconds between faults, and the kinds of faults."""
TIMES: Mapping[str, tuple[Sequence[str], str]] = {
    "images": (
        ("lease_until", "due_at", "queued_at", "outputs_lease_until", "outputs_due_at"),
        "due_at IS NOT NULL OR outputs_due_at IS NOT NULL",
    ),
    "deliveries": (("lease_until", "due_at"), "due_at IS NOT NULL"),
    "event_positions": (("lease_until",), "lease_until IS NOT NULL"),
}
"""The columns with times that are compared with the database's clock, and the rows in which they are."""
GARBAGE = ("", "\x00\x01", "[]", '{"v":1}', '{"v":1,"image_id":"none"}', '{"v":"1","image_id":null}', "{" * 2000)


def schedule(seed: int, seconds: float) -> dict[str, list[Planned]]:
    """Return the faults of each lane."""
    return {lane: list(_lane(seed, lane, seconds)) for lane in LANES}


def _lane(seed: int, lane: str, seconds: float) -> Iterator[Planned]:
    """Draw kinds from a deck that is reshuffled when it is empty, so that every kind occurs regularly.

    It ends with a deck of which no fault would be over in time.
    """
    rng = random.Random(f"{seed}-{lane}")
    gap, kinds = LANES[lane]
    at, rested = QUIET + rng.uniform(0, gap[0]), 0.0
    deck = [(kind, subject) for kind in kinds for subject in kind.subjects]
    drawn = True
    while drawn:
        drawn = False
        for kind, subject in rng.sample(deck, len(deck)):
            lasts = rng.uniform(*kind.lasts)
            begin = round(max(at, rested) if kind.rest else at, 2)
            if begin + lasts > seconds or lasts > seconds * LONGEST:
                continue
            drawn = True
            yield Planned(begin, kind.name, subject, round(lasts, 2))
            rested = begin + kind.rest if kind.rest else rested
            at = begin + lasts + rng.uniform(*gap)


@dataclass(slots=True)
class FaultInjector:
    """Executes a schedule."""

    cluster: Cluster
    history: History
    workload: Workload
    rng: random.Random
    report: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    left_out: dict[str, str] = field(default_factory=dict)
    """Kinds of faults that this machine does not support, with the reason."""

    async def run(self, lanes: dict[str, list[Planned]]) -> None:
        """Run all lanes to their end; every fault is over then."""
        async with asyncio.TaskGroup() as tasks:
            for planned in lanes.values():
                tasks.create_task(self._lane(planned))

    async def _lane(self, planned: Sequence[Planned]) -> None:
        for each in planned:
            await asyncio.sleep(max(0.0, self.began + each.at - time.monotonic()))
            await self._execute(each)

    async def _execute(self, planned: Planned) -> None:
        act: Callable[[Planned], Awaitable[str | None]] = getattr(self, "_" + planned.kind.replace("-", "_"))
        began, at = time.time(), time.monotonic() - self.began
        why_not = await act(planned)
        outcome = f"for {time.time() - began:.1f} s" if why_not is None else f"not possible: {why_not}"
        self.report(f"{at:6.1f} s  {planned.kind:20} {planned.subject:16} {outcome}")
        if why_not is None:
            self.history.append(Fault(kind=planned.kind, subject=planned.subject, began=began, ended=time.time()))

    # Processes

    async def _kill_api(self, planned: Planned) -> None:
        await self._replace(planned, sign=signal.SIGKILL)

    async def _kill_worker(self, planned: Planned) -> None:
        await self._replace(planned, sign=signal.SIGKILL)

    async def _restart_api(self, planned: Planned) -> None:
        await self._replace(planned, sign=signal.SIGTERM)

    async def _restart_worker(self, planned: Planned) -> None:
        await self._replace(planned, sign=signal.SIGTERM)

    async def _replace(self, planned: Planned, sign: signal.Signals) -> None:
        """Stop a process and start it again; its decoders must notice its death by themselves."""
        service = self.cluster.services[planned.subject]
        if sign is signal.SIGKILL:
            await asyncio.to_thread(service.crash)
            await asyncio.sleep(planned.seconds)
            await asyncio.to_thread(service.kill)
        else:
            await asyncio.to_thread(service.stop)
        await asyncio.to_thread(service.start)

    async def _kill_decoder(self, planned: Planned) -> str | None:
        """Kill a busy decoder if there is one, else an idle one."""
        decoders = self._decoders(planned.subject)
        if not decoders:
            return "no decoder process"
        victim = max(decoders, key=lambda each: each.status() == psutil.STATUS_RUNNING)
        victim.kill()
        return None

    def _decoders(self, worker: str) -> list[psutil.Process]:
        children = self.cluster.services[worker].process.children()
        return [child for child in children if DECODER in child.cmdline()]

    async def _pause_worker(self, planned: Planned) -> None:
        """Stop the worker process; its decoder processes continue."""
        process = self.cluster.services[planned.subject].process
        process.suspend()
        await asyncio.sleep(planned.seconds)
        process.resume()

    async def _step_clock(self, planned: Planned) -> None:
        await self._apply_process_fault(planned, "clock", self.rng.choice(CLOCK_STEPS))

    async def _slow_disk(self, planned: Planned) -> None:
        await self._apply_process_fault(planned, "fsync", self.rng.uniform(0.1, 0.8))

    async def _apply_process_fault(self, planned: Planned, what: str, seconds: float) -> None:
        self.cluster.set_process_fault(planned.subject, what, seconds)
        await asyncio.sleep(planned.seconds)
        self.cluster.set_process_fault(planned.subject, what, 0)

    # Servers

    async def _kill_broker(self, planned: Planned) -> None:
        await asyncio.to_thread(self.cluster.rabbitmq.kill)
        await asyncio.sleep(planned.seconds)
        await asyncio.to_thread(self.cluster.rabbitmq.start)

    async def _lose_broker_data(self, planned: Planned) -> None:
        await asyncio.to_thread(self.cluster.rabbitmq.kill)
        await asyncio.to_thread(shutil.rmtree, self.cluster.rabbitmq.folder / "mnesia")
        await asyncio.sleep(planned.seconds)
        await asyncio.to_thread(self.cluster.rabbitmq.start)

    async def _delete_queue(self, planned: Planned) -> str | None:
        async def delete(channel: aio_pika.abc.AbstractChannel) -> None:
            await channel.queue_delete(planned.subject)

        return await self._at_broker(delete)

    async def _fail_over(self, planned: Planned) -> None:
        """The primary dies for good; its address leads to the standby at once, which is promoted later."""
        postgres = self.cluster.postgres
        await asyncio.to_thread(postgres.kill_primary)
        self.cluster.lead_to_database(postgres.standby.url)
        await asyncio.sleep(planned.seconds)
        await asyncio.to_thread(postgres.promote_standby)
        await asyncio.to_thread(postgres.add_standby)

    async def _read_only_database(self, planned: Planned) -> None:
        """Make it read-only, terminate its sessions, and make it writable without terminating the new ones."""
        await asyncio.to_thread(self.cluster.postgres.make_read_only)
        await asyncio.sleep(planned.seconds)
        await asyncio.to_thread(self.cluster.postgres.make_writable)

    async def _serve_standby(self, planned: Planned) -> None:
        """Let the database's address lead to the standby; the sessions that were opened there stay open."""
        self.cluster.lead_to_database(self.cluster.postgres.standby.url)
        self.cluster.reset_database_connections()
        await asyncio.sleep(planned.seconds)
        self.cluster.lead_to_database(self.cluster.database_url)

    async def _lose_standby(self, planned: Planned) -> None:
        """Kill the standby: commits wait until the primary is set to commit without it; then there is a new one."""
        await asyncio.to_thread(self.cluster.postgres.kill_standby)
        await asyncio.sleep(planned.seconds)
        await asyncio.to_thread(self.cluster.postgres.release_commits)
        await asyncio.to_thread(self.cluster.postgres.add_standby)

    async def _kill_database(self, planned: Planned) -> None:
        await asyncio.to_thread(self.cluster.postgres.kill_primary)
        await asyncio.sleep(planned.seconds)
        await asyncio.to_thread(self.cluster.postgres.start_primary)

    async def _restart_database(self, _planned: Planned) -> None:
        """Restart it normally, which aborts running transactions."""
        await asyncio.to_thread(self.cluster.postgres.restart_primary)

    async def _step_database_clock(self, planned: Planned) -> str | None:
        """Shift all stored times: times are only compared, so this equals a jump of the clock."""
        try:
            connection = await asyncpg.connect(self.cluster.database_url.replace("+asyncpg", ""), timeout=5)
            for table, (times, unfinished) in TIMES.items():
                moved = ", ".join(f"{name} = {name} - $1 * interval '1 second'" for name in times)
                await connection.execute(f"UPDATE {table} SET {moved} WHERE {unfinished}", float(planned.subject))  # noqa: S608  (constant names)
            await connection.close()
        except (OSError, asyncpg.PostgresError):
            return "the database is unavailable"
        return None

    # Connections

    async def _reset_connections(self, planned: Planned) -> None:
        await self._switch(planned, Mode.RESET)

    async def _delay_connections(self, planned: Planned) -> None:
        await self._switch(planned, Mode.DELAY)

    async def _black_hole(self, planned: Planned) -> None:
        await self._switch(planned, Mode.BLACK_HOLE)

    async def _lose_reply(self, planned: Planned) -> None:
        self.cluster.links[planned.subject].fatal = REPLIES[planned.subject.partition("-")[2]]
        await self._switch(planned, Mode.LOSE_REPLY)

    async def _switch(self, planned: Planned, mode: Mode) -> None:
        link = self.cluster.links[planned.subject]
        link.switch(mode)
        await asyncio.sleep(planned.seconds)
        link.switch(Mode.PASS)

    # Messages

    async def _duplicate_message(self, planned: Planned) -> str | None:
        if not self.workload.known:
            return "no image yet"
        body = json.dumps({"v": 1, "image_id": self.workload.known[-1].image_id})
        return await self._publish(planned.subject, body, TIMES_DELIVERED)

    async def _garbage_message(self, planned: Planned) -> str | None:
        return await self._publish(planned.subject, self.rng.choice(GARBAGE), garbage=True)

    async def _future_message(self, planned: Planned) -> str | None:
        if not self.workload.known:
            return "no image yet"
        body = json.dumps({"v": 2, "image_id": self.workload.known[-1].image_id, "extra": {"more": [1, 2]}})
        return await self._publish(planned.subject, body)

    async def _publish(self, queue: str, body: str, times: int = 1, *, garbage: bool = False) -> str | None:
        async def publish(channel: aio_pika.abc.AbstractChannel) -> None:
            for _ in range(times):
                message = aio_pika.Message(body.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, queue)

        if garbage:
            # Recorded first: the message may arrive although publishing reports an error.
            self.history.append(Garbage(body=body))
        return await self._at_broker(publish)

    async def _at_broker(self, act: Callable[[aio_pika.abc.AbstractChannel], Awaitable[None]]) -> str | None:
        """Act on the broker directly; return a reason if it is unavailable."""
        try:
            async with asyncio.timeout(5), await aio_pika.connect(self.cluster.rabbitmq.url) as connection:
                await act(await connection.channel())
        except (OSError, AMQPError, TimeoutError):
            return "the broker is unavailable"
        return None

    # The disk

    async def _fill_disk(self, planned: Planned) -> str | None:
        disk = self.cluster.disk
        if not disk.small:
            self.left_out[planned.kind] = "needs root or user namespaces"
            return self.left_out[planned.kind]
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(planned.seconds)
        await asyncio.to_thread(disk.empty)
        return None
