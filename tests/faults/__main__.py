"""Runs the service under random faults and checks its invariants.

    python -m tests.faults [--seed N] [--seconds S] [--beside COMMIT]

The same seed gives the same schedule of faults and the same client requests. Their exact interleaving depends on the
machine, so a replay is likely, but not certain, to find the same violation.

With ``--beside``, one more worker runs the version of a commit of this repository, as during an update.
"""

import argparse
import asyncio
import logging
import random
import sys
import time
from pathlib import Path
from random import SystemRandom
from shutil import copyfile
from tempfile import mkdtemp

from harness.service import Service
from tests.faults.checker import Evidence, violations, violations_without_workers
from tests.faults.client import Abilities
from tests.faults.cluster import OLD_WORKER, Cluster
from tests.faults.fault_injector import FaultInjector, schedule
from tests.faults.history import History
from tests.faults.pictures import Pictures
from tests.faults.receiver_set import ReceiverSet
from tests.faults.report import summary
from tests.faults.workload import Workload

SECONDS = 60.0
"""Duration of the faults. Start, convergence and checks take half as long again."""
CONVERGENCE = 120.0
"""Seconds within which the service must become idle."""
_POLL_INTERVAL = 1.0
DONE = "image done"
"""What a worker logs."""
REFUSED = "ck_images_recipe_known"
"""In the error of a claim that the database refuses: the name of the constraint."""
POISONS = 4, 15
"""Minimum and maximum number of poison images in a run."""


def main() -> int:
    """Run once and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000), help="repeat an earlier run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long faults go on")
    parser.add_argument("--beside", metavar="COMMIT", help="run a worker of that version beside the others")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)  # the service logs to files; an unavailable broker is expected here
    return asyncio.run(_run(options.seed, options.seconds, options.beside))


async def _run(seed: int, seconds: float, beside: str | None) -> int:
    folder = Path(mkdtemp(prefix="image-service-faults-"))
    others = "" if beside is None else f", beside a worker of {beside}"
    _print(f"seed {seed}, {seconds:.0f} s of faults{others}; the history goes to {folder / 'history.jsonl'}")
    history = History(folder / "history.jsonl")
    async with Cluster.running(beside) as cluster:
        receivers = ReceiverSet(seed, history, cluster.urls, cluster.rabbitmq.url)
        endpoints = await receivers.begin(next(iter(cluster.urls.values())))
        injector = await _inject_faults(cluster, history, seed, seconds, endpoints)
        receivers.recover()
        began = time.monotonic()
        evidence = Evidence(
            history=history,
            database_url=cluster.database_url,
            rabbitmq_url=cluster.rabbitmq.url,
            storage=cluster.storage,
            grace=CONVERGENCE,
            api_url=next(iter(cluster.urls.values())),
            processes=cluster.processes(),
            old_log=None if beside is None else cluster.folder / OLD_WORKER / "server.log",
        )
        found = await violations(evidence)
        _print(f"idle and checked after {time.monotonic() - began:.1f} s")
        await _wait_for_acknowledgements(cluster)
        await asyncio.gather(*(asyncio.to_thread(cluster.services[name].stop) for name in cluster.workers))
        found += await violations_without_workers(evidence)
        await receivers.close()
        if beside is not None:
            _print(_share_of(cluster.services[OLD_WORKER]))
        if found:
            for name in cluster.services:
                copyfile(cluster.folder / name / "server.log", folder / f"{name}.log")
    history.close()
    for line in summary(seed, history, injector.left_out, found):
        _print(line)
    return 1 if found else 0


def _share_of(old: Service) -> str:
    """Return what a worker of another version did: without any, a run proves nothing about it."""
    refused = sum(REFUSED in line for line in old.log.splitlines())
    return f"{OLD_WORKER}: {len(old.lines(DONE))} images done, {refused} claims of named recipes refused"


async def _wait_for_acknowledgements(cluster: Cluster) -> None:
    """Wait until every delivered message is acknowledged, for at most ``CONVERGENCE`` seconds.

    After a failure a worker holds a message back for some seconds, while another worker may have finished the image.
    The broker may also hold messages for a consumer that has to reconnect. Messages that return to the queue when the
    workers stop after this wait would never have been acknowledged.
    """
    began = time.monotonic()
    await asyncio.sleep(cluster.rabbitmq.COUNTED_EVERY + _POLL_INTERVAL)
    while held := await asyncio.to_thread(cluster.rabbitmq.unacknowledged):
        if time.monotonic() - began > CONVERGENCE:
            break
        await asyncio.sleep(_POLL_INTERVAL)
    _print(f"{held} messages are unacknowledged {time.monotonic() - began:.1f} s later")


async def _inject_faults(
    cluster: Cluster, history: History, seed: int, seconds: float, endpoints: list[str]
) -> FaultInjector:
    """Run clients and fault injector together; return when the last fault is over, and uploads are accepted again."""
    fewest, most = POISONS
    workload = Workload(
        seed=seed,
        urls=cluster.urls,
        history=history,
        pictures=await asyncio.to_thread(Pictures),
        abilities=await Abilities.of(next(iter(cluster.urls.values()))),
        endpoints=endpoints,
        poison_every=seconds / max(fewest, min(most, seconds / 40)),
    )
    injector = FaultInjector(cluster, history, workload, random.Random(f"{seed}-fault-injector"), _print)
    stop = asyncio.Event()
    clients = asyncio.create_task(workload.run(stop))
    try:
        await injector.run(schedule(seed, seconds))
    finally:
        stop.set()
        await clients
    await workload.upload_until_accepted()
    return injector


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (program output)


if __name__ == "__main__":
    sys.exit(main())
