"""Prints the trace of one upload, from the request to DONE, through all three processes, with times.

    make trace                            or: python -m benchmarks.operations.trace photo.jpg

PostgreSQL, RabbitMQ, an API and a worker run as processes of their own, and send their spans to this one. Some images
are uploaded before the traced one, because the first upload includes opening connections and starting a decoder
process.
"""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path

from benchmarks.operations.local_cluster import local_cluster
from harness.images import encoded, gradient
from harness.service import client, done, upload
from harness.traces import Collector, Span, tree
from harness.waiting import eventually

_WARM_UP = 5
_SIDES = (4000, 3000)


def main() -> None:
    """Upload the image and print its trace."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("image", type=Path, nargs="?", help="a file to upload (default: a JPEG of 12 megapixels)")
    given = options.parse_args()
    content = given.image.read_bytes() if given.image else encoded(gradient(*_SIDES), "JPEG")
    with Collector() as collector, local_cluster(**collector.env) as cluster:
        cluster.worker("worker")
        image_id = asyncio.run(_upload(cluster.api.url, content))
        spans = asyncio.run(eventually(_complete_trace(collector, image_id)))
    print("\n".join(tree(spans)))


async def _upload(url: str, content: bytes) -> str:
    """Upload the image several times; returns the id of the last upload."""
    async with client(url) as api:
        for _ in range(_WARM_UP + 1):
            image_id = str((await upload(api, content))["id"])
            await done(api, image_id)
    return image_id


def _complete_trace(collector: Collector, image_id: str) -> Callable[[], list[Span]]:
    """Returns a function that gives an image's trace once it is complete, else an empty list."""

    def complete() -> list[Span]:
        spans = collector.trace_of(image_id)
        return spans if {"POST /images", "process"} <= {span.name for span in spans} else []

    return complete


if __name__ == "__main__":
    main()
