"""Measures the whole service under load, and the ceiling of its bare renderer on the same processors.

    make bench                            or: make bench ARGS="--quick"

Two services run with their default settings: PostgreSQL with fsync, RabbitMQ, an API and a worker ("distributed"); and
``image-service standalone``. First the latency of the idle services is measured, one upload at a time. Then clients in
a process of their own upload pictures, each client one at a time, until a number of images are DONE. Every measurement
is repeated, alternating between the services; the repetition with the median speed is reported. Last, a hundred
clients upload ten megabytes each at once.

- ceiling: images a second of the bare renderer, with a warm process for each processor, without durable storage;
- of ceiling: the service's images a second without the client's share of the processors, divided by the median ceiling;
- 202: from the first byte of the request to the end of the response; DONE: to ``finished_at``, which the database sets
  in the transaction that makes an image DONE; when idle, until another connection sees it DONE. Three figures are
  p50 / p95 / p99;
- overhead: the service's processor time that is not decoding, divided by that of decoding;
- floor: the decoders' processor time in the bare renderer, and that of bare durable ingest, a plain process that
  receives an image, hashes it, and syncs it to the disk;
- CPU: user and system time of all processes of a group, as the kernel counts it; peak RSS: of the group's largest
  process.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from benchmarks import figures
from benchmarks.service import plot, report
from benchmarks.service.idle import IdleLatency, measure_idle
from benchmarks.service.ingest import measure_ingest
from benchmarks.service.large_uploads import measure_large_uploads
from benchmarks.service.pictures import LARGE, MEGABYTE, SMALL, Picture, padded
from benchmarks.service.report import Measured
from benchmarks.service.runs import (
    Ceiling,
    Plan,
    Run,
    ServiceUnderTest,
    distributed,
    measure,
    measure_ceiling,
    standalone,
)

FOLDER: Final = Path("build/bench")
DOCS: Final = Path("docs")
SPEED: Final = "service-speed.svg"
PROCESSOR_TIME: Final = "service-cpu.svg"
CLIENTS: Final = (1, 8, 64)
IMAGES: Final = {LARGE: 120, SMALL: 600}
QUICK_SHARE: Final = 3
"""A quick run uploads this part of the images."""
WARM_UP: Final = 16
LARGE_UPLOAD: Final = 10_000_000


def main() -> None:
    """Measure, print tables, and write JSON and diagrams."""
    given = _options()
    processors = os.cpu_count() or 1
    print(f"{figures.machine()} Decoders: {processors}. Rounds: {given.rounds}.\n")
    with distributed(processors) as several, standalone(processors) as single:
        measured = asyncio.run(_measured((several, single), given, processors))
    tables = dict(sections(measured))
    for lines in tables.values():
        print("\n".join(lines), end="\n\n")
    _write(given.json, measured)
    drawings = DOCS if given.publish else FOLDER
    plot.write_speed(drawings / SPEED, measured.runs)
    plot.write_processor_time(drawings / PROCESSOR_TIME, measured.runs)
    if given.publish:
        for name, lines in tables.items():
            figures.publish(name, lines)
        figures.publish_summary()
    print(f"written: {given.json}, {drawings / SPEED}, {drawings / PROCESSOR_TIME}")


async def _measured(services: Sequence[ServiceUnderTest], given: argparse.Namespace, processors: int) -> Measured:
    idle = [one for picture in (MEGABYTE, LARGE) for one in await _idle(services, given, picture)]
    runs = [
        run for picture, images in IMAGES.items() for run in await _runs(services, given, picture, images, processors)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.jpg"
        file.write_bytes(padded(SMALL.content(), LARGE_UPLOAD))
        large = [await measure_large_uploads(service, file, LARGE_UPLOAD / 1e6, given.many) for service in services]
    return Measured(runs=tuple(runs), ingest=_ingest(given), idle=tuple(idle), large_uploads=tuple(large))


async def _runs(
    services: Sequence[ServiceUnderTest], given: argparse.Namespace, picture: Picture, images: int, processors: int
) -> list[Run]:
    """Returns the run with the median speed for each service and number of clients, with the median ceiling."""
    images = images // QUICK_SHARE if given.quick else images
    content = picture.content()
    repetitions: dict[tuple[str, int], list[Run]] = {
        (service.mode, clients): [] for service in services for clients in given.clients
    }
    ceilings: list[Ceiling] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.jpg"
        file.write_bytes(content)

        def plan(clients: int, count: int) -> Plan:
            return Plan(picture=picture.name, file=file, clients=clients, images=count, processors=processors)

        ceiling = await measure_ceiling(content, images, processors)
        for service in services:
            await measure(service, plan(WARM_UP, WARM_UP), ceiling)
        for number in range(given.rounds):  # in turn: a change of the machine's speed affects all of them
            for service in services:
                for clients in given.clients:
                    ceiling = await measure_ceiling(content, images, processors)
                    ceilings.append(ceiling)
                    run = await measure(service, plan(clients, max(images, clients)), ceiling)
                    repetitions[service.mode, clients].append(run)
                    print(
                        f"{picture.name}, {service.mode}, {clients} clients, round {number + 1}: "
                        f"{run.rate:.1f} of {ceiling.rate:.1f} images/s",
                        flush=True,
                    )
    print()
    # On a shared machine a single ceiling varies too much.
    median_ceiling = Ceiling(
        rate=statistics.median(each.rate for each in ceilings),
        decode=statistics.median(each.decode for each in ceilings),
    )
    median = [sorted(runs, key=lambda run: run.rate)[len(runs) // 2] for runs in repetitions.values()]
    return [replace(run, ceiling=median_ceiling) for run in median]


def _ingest(given: argparse.Namespace) -> dict[str, float]:
    """Returns the median processor time of bare durable ingest for each picture."""
    spent: dict[str, list[float]] = {picture.name: [] for picture in IMAGES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            for picture, images in IMAGES.items():
                files = Path(folder) / f"{picture.name} {number}"
                files.mkdir()
                spent[picture.name].append(measure_ingest(picture.content(), images, files))
    return {name: statistics.median(each) for name, each in spent.items()}


async def _idle(services: Sequence[ServiceUnderTest], given: argparse.Namespace, picture: Picture) -> list[IdleLatency]:
    """Returns the round with the median latency for each service."""
    content = picture.content()
    rounds: dict[str, list[IdleLatency]] = {service.mode: [] for service in services}
    for _ in range(given.rounds):
        for service in services:
            rounds[service.mode].append(await measure_idle(service, picture.name, content, given.idle))
    return [sorted(each, key=lambda idle: idle.beside_render)[len(each) // 2] for each in rounds.values()]


def sections(measured: Measured) -> Iterator[tuple[str, list[str]]]:
    """Yields the printed tables, by the names of their sections in docs/performance.md."""
    yield "machine", [figures.machine()]
    yield "speed", list(report.speed(measured.runs))
    yield "processor time", list(report.processor_time(measured.runs))
    yield "overhead", list(report.overhead(measured.runs, measured.ingest))
    yield "memory", list(report.memory(measured.runs))
    yield "idle", list(report.idle(measured.idle))
    yield "large uploads", list(report.large_uploads(measured.large_uploads))
    yield "plan", list(report.plan(measured.runs))
    yield "goals", list(report.goals(measured))


def _write(path: Path, measured: Measured) -> None:
    content = {
        "machine": {"processor": platform.machine(), "python": figures.python(), "cores": os.cpu_count()},
        "ingest": measured.ingest,
        "runs": [run.summary() for run in measured.runs],
        "idle": [asdict(one) | {"beside_render": one.beside_render} for one in measured.idle],
        "many": [asdict(one) | {"growth": one.growth} for one in measured.large_uploads],
        "goals": [asdict(goal) for goal in report.compared(measured)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one round, of a third of the images")
    options.add_argument("--rounds", type=int, help="repetitions of each run (default 3; quick: 1)")
    options.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="numbers of clients (default 1 8 64)")
    options.add_argument("--idle", type=int, default=40, help="uploads to the idle service (default 40)")
    options.add_argument("--many", type=int, default=100, help="uploads of ten megabytes at once (default 100)")
    options.add_argument("--json", type=Path, default=FOLDER / "service.json", help="file for the figures")
    options.add_argument("--publish", action="store_true", help="also write the results to docs/ and README.md")
    given = options.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 3)
    return given


if __name__ == "__main__":
    main()
