"""Thousands of images through PostgreSQL and RabbitMQ, while the broker is restarted and a worker killed each minute.

    make soak                             or: python -m benchmarks.operations.soak --images 10000 --minutes 4

Servers, API and two workers run as processes of their own with the default settings. Every fiftieth client hangs up
on its first try; all try again, under the same Idempotency-Key. At the end each accepted image is asked for over HTTP,
and its files are compared with what was sent and with what is recorded. Exits with 1 if anything is lost.

    make soak ARGS="--queue-first 10000"

uploads them while no worker runs, has the reconciler of one look after them for several times UNCLAIMED_AFTER, tells
what that costs and how many messages it makes, and then starts two workers to see whose images overtake others.
"""

import argparse
import asyncio
import sys

from benchmarks.operations import breaking, queueing
from benchmarks.operations.local_cluster import local_cluster


def main() -> None:
    """Run what was asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=10_000, help="uploads (default 10,000)")
    options.add_argument("--minutes", type=float, default=4.0, help="that the uploads are spread over (default 4)")
    options.add_argument("--queue-first", type=int, metavar="N", help="queue so many while no worker runs, instead")
    options.add_argument("--unclaimed-after", type=float, default=60.0, help="UNCLAIMED_AFTER then (default 60)")
    given = options.parse_args()
    settings = {"UNCLAIMED_AFTER": str(given.unclaimed_after)} if given.queue_first else {}
    with local_cluster(**settings) as cluster:
        if given.queue_first:
            well = asyncio.run(queueing.run(cluster, given.queue_first))
        else:
            well = asyncio.run(breaking.run(cluster, given.images, given.minutes))
    if not well:
        sys.exit(1)


if __name__ == "__main__":
    main()
