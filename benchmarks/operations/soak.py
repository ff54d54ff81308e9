"""Uploads thousands of images while the broker is restarted and a worker is killed each minute.

    make soak                             or: python -m benchmarks.operations.soak --images 10000 --minutes 4

PostgreSQL, RabbitMQ, an API and two workers run as processes of their own with the default settings. One in fifty
clients closes its connection during its first try; all retry under the same Idempotency-Key. At the end each accepted
image is read over HTTP, and its files are compared with the upload and with the database. Exits with 1 if anything is
lost.

    make soak ARGS="--queue-first 10000"

uploads the images while no worker runs, runs a reconciler for several times UNCLAIMED_AFTER, prints its cost and the
number of its messages, then starts two workers and prints how many images overtake others.
"""

import argparse
import asyncio
import sys

from benchmarks.operations import deep_queue, soak_faults
from benchmarks.operations.local_cluster import local_cluster


def main() -> None:
    """Run the chosen soak test."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=10_000, help="uploads (default 10,000)")
    options.add_argument("--minutes", type=float, default=4.0, help="duration of the uploads (default 4)")
    options.add_argument("--queue-first", type=int, metavar="N", help="instead, queue N images while no worker runs")
    options.add_argument(
        "--unclaimed-after", type=float, default=60.0, help="UNCLAIMED_AFTER with --queue-first (default 60)"
    )
    given = options.parse_args()
    settings = {"UNCLAIMED_AFTER": str(given.unclaimed_after)} if given.queue_first else {}
    with local_cluster(**settings) as cluster:
        if given.queue_first:
            passed = asyncio.run(deep_queue.run(cluster, given.queue_first))
        else:
            passed = asyncio.run(soak_faults.run(cluster, given.images, given.minutes))
    if not passed:
        sys.exit(1)


if __name__ == "__main__":
    main()
