"""Break everything, and see whether the service keeps its promises.

    python -m tests.faults [--seed N] [--seconds S]

The same seed makes the same plan of faults and the same wishes of the clients. When which of them meet is up to the
host, so a replay is likely to find the same again, and not certain to.
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

from tests.faults.checker import Evidence, violations, violations_without_workers
from tests.faults.client import Abilities
from tests.faults.cluster import WORKERS, Cluster
from tests.faults.fault_injector import FaultInjector, schedule
from tests.faults.history import History
from tests.faults.pictures import Pictures
from tests.faults.report import summary
from tests.faults.workload import Workload

SECONDS = 60.0
"""Of faults; to start, to come to rest and to judge take half as long again."""
CONVERGENCE = 120.0
"""Seconds in which the service must have come to rest."""
_LOOK_AGAIN = 1.0
POISONS = 4, 15
"""The fewest and the most poison images in a run."""


def main() -> int:
    """Run once; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000), help="repeat an earlier run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long faults go on")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)  # what the service logs goes to files; a broker that is away is no news
    return asyncio.run(_run(options.seed, options.seconds))


async def _run(seed: int, seconds: float) -> int:
    folder = Path(mkdtemp(prefix="image-service-faults-"))
    _print(f"seed {seed}, {seconds:.0f} s of faults; the history goes to {folder / 'history.jsonl'}")
    history = History(folder / "history.jsonl")
    async with Cluster.running() as cluster:
        injector = await _break(cluster, history, seed, seconds)
        began = time.monotonic()
        evidence = Evidence(
            history=history,
            database_url=cluster.database_url,
            rabbitmq_url=cluster.rabbitmq.url,
            storage=cluster.storage,
            grace=CONVERGENCE,
            api_url=next(iter(cluster.urls.values())),
            processes=cluster.processes(),
        )
        found = await violations(evidence)
        _print(f"at rest and judged within {time.monotonic() - began:.1f} s")
        await _until_nothing_is_held(cluster)
        await asyncio.gather(*(asyncio.to_thread(cluster.services[name].stop) for name in WORKERS))
        found += await violations_without_workers(evidence)
        if found:
            for name in cluster.services:
                copyfile(cluster.folder / name / "server.log", folder / f"{name}.log")
    history.close()
    for line in summary(seed, history, injector.left_out, found):
        _print(line)
    return 1 if found else 0


async def _until_nothing_is_held(cluster: Cluster) -> None:
    """Wait until every message that was delivered is acknowledged, or for as long as that may take.

    A worker that could not do its work holds the message back for some seconds, and another may have finished the image
    meanwhile; and the broker may hold some for a consumer that it forgot, until that connects anew. What is given back
    when the workers end is then what they would have held for ever.
    """
    began = time.monotonic()
    await asyncio.sleep(cluster.rabbitmq.COUNTED_EVERY + _LOOK_AGAIN)
    while held := await asyncio.to_thread(cluster.rabbitmq.unacknowledged):
        if time.monotonic() - began > CONVERGENCE:
            break
        await asyncio.sleep(_LOOK_AGAIN)
    _print(f"{held} messages are held {time.monotonic() - began:.1f} s later")


async def _break(cluster: Cluster, history: History, seed: int, seconds: float) -> FaultInjector:
    """Let clients and nemesis loose at the same time; returns when the last fault is mended."""
    fewest, most = POISONS
    workload = Workload(
        seed=seed,
        urls=cluster.urls,
        history=history,
        pictures=await asyncio.to_thread(Pictures),
        abilities=await Abilities.of(next(iter(cluster.urls.values()))),
        poison_every=seconds / max(fewest, min(most, seconds / 40)),
    )
    injector = FaultInjector(cluster, history, workload, random.Random(f"{seed}-fault-injector"), _tell)
    stop = asyncio.Event()
    clients = asyncio.create_task(workload.run(stop))
    try:
        await injector.run(schedule(seed, seconds))
    finally:
        stop.set()
        await clients
    return nemesis


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (a program's output)


if __name__ == "__main__":
    sys.exit(main())
