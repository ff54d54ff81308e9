"""The whole service under load, beside its own renderer's ceiling, in one run on the same processors.

    make bench                            or: make bench ARGS="--quick"

PostgreSQL with fsync, RabbitMQ, an API and a worker; and beside them ``image-service standalone``; both with the
default settings. First they and their disk are idle: one upload at a time. Then clients in a process of their own
upload pictures, each one the next when the one before is answered, until so many are DONE. All this is done several
times, in turn, and counts as in the run of median speed. Last, a hundred clients upload ten megabytes each at once.

- ceiling: the bare renderer in as many warm processes as there are processors, nothing stored durably;
- of ceiling: images a second through the median of those, the client's share of the processors taken off;
- 202: from the first byte of the request to the whole answer; DONE: to ``finished_at``, which the database sets in the
  transaction that makes an image DONE; when idle, until another connection sees it DONE. Three figures are
  p50 / p95 / p99;
- CPU: user and system time of all processes of a kind, as the kernel counts it; peak RSS: of the largest of them.
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
from benchmarks.service import plot, report, special
from benchmarks.service.pictures import LARGE, MEGABYTE, SMALL, Picture, padded
from benchmarks.service.report import Measured
from benchmarks.service.runs import Ceiling, Plan, Run, Running, ceiling, distributed, measure, standalone

FOLDER: Final = Path("build/bench")
DOCS: Final = Path("docs")
SPEED: Final = "service-speed.svg"
PROCESSOR_TIME: Final = "service-cpu.svg"
CLIENTS: Final = (1, 8, 64)
IMAGES: Final = {LARGE: 120, SMALL: 600}
QUICK_SHARE: Final = 3
"""A quick run makes one of so many images."""
WARM_UP: Final = 16
LARGE_UPLOAD: Final = 10_000_000


def main() -> None:
    """Measure, print tables, and write JSON and plots."""
    given = _options()
    processors = os.cpu_count() or 1
    print(f"{figures.machine()} Decoders: {processors}. Rounds: {given.rounds}.\n")
    with distributed(processors) as servers, standalone(processors) as one_process:
        measured = asyncio.run(_measured((servers, one_process), given, processors))
    sections = dict(_sections(measured))
    for lines in sections.values():
        print("\n".join(lines), end="\n\n")
    _write(given.json, measured)
    drawings = DOCS if given.publish else FOLDER
    plot.write_speed(drawings / SPEED, measured.runs)
    plot.write_processor_time(drawings / PROCESSOR_TIME, measured.runs)
    if given.publish:
        for name, lines in sections.items():
            figures.publish(name, lines)
    print(f"written: {given.json}, {drawings / SPEED}, {drawings / PROCESSOR_TIME}")


async def _measured(services: Sequence[Running], given: argparse.Namespace, processors: int) -> Measured:
    idles = [idle for picture in (MEGABYTE, LARGE) for idle in await _idles(services, given, picture)]
    runs = [
        run for picture, images in IMAGES.items() for run in await _runs(services, given, picture, images, processors)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.jpg"
        file.write_bytes(padded(SMALL.content(), LARGE_UPLOAD))
        many = [await special.many(running, file, LARGE_UPLOAD / 1e6, given.many) for running in services]
    return Measured(runs=tuple(runs), idles=tuple(idles), many=tuple(many))


async def _runs(
    services: Sequence[Running], given: argparse.Namespace, picture: Picture, images: int, processors: int
) -> list[Run]:
    """Of each kind the run of median speed, beside the median of all ceilings."""
    images = images // QUICK_SHARE if given.quick else images
    content = picture.content()
    tries: dict[tuple[str, int], list[Run]] = {
        (running.mode, clients): [] for running in services for clients in given.clients
    }
    ceilings: list[Ceiling] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.jpg"
        file.write_bytes(content)

        def plan(clients: int, count: int) -> Plan:
            return Plan(picture=picture.name, file=file, clients=clients, images=count, processors=processors)

        most = await ceiling(content, images, processors)
        for running in services:
            await measure(running, plan(WARM_UP, WARM_UP), most)
        for number in range(given.rounds):  # in turn, so that a machine whose speed drifts is fair to all
            for running in services:
                for clients in given.clients:
                    most = await ceiling(content, images, processors)
                    ceilings.append(most)
                    run = await measure(running, plan(clients, max(images, clients)), most)
                    tries[running.mode, clients].append(run)
                    print(
                        f"{picture.name}, {running.mode}, {clients} clients, round {number + 1}: "
                        f"{run.rate:.1f} of {most.rate:.1f} images/s",
                        flush=True,
                    )
    print()
    # A machine that others use as well is slow for a second now and then: a ceiling by itself says little.
    usual = Ceiling(
        rate=statistics.median(each.rate for each in ceilings),
        decode=statistics.median(each.decode for each in ceilings),
    )
    median = [sorted(each, key=lambda run: run.rate)[len(each) // 2] for each in tries.values()]
    return [replace(run, ceiling=usual) for run in median]


async def _idles(services: Sequence[Running], given: argparse.Namespace, picture: Picture) -> list[special.Idle]:
    """Of each service the round of median speed."""
    content = picture.content()
    tries: dict[str, list[special.Idle]] = {running.mode: [] for running in services}
    for _ in range(given.rounds):
        for running in services:
            tries[running.mode].append(await special.idle(running, picture.name, content, given.idle))
    return [sorted(each, key=lambda idle: idle.beside_render)[len(each) // 2] for each in tries.values()]


def _sections(measured: Measured) -> Iterator[tuple[str, list[str]]]:
    """What is printed, and has its place in the document, by its name there."""
    yield "machine", [figures.machine()]
    yield "speed", list(report.speed(measured.runs))
    yield "processor time", list(report.processor_time(measured.runs))
    yield "memory", list(report.memory(measured.runs))
    yield "idle", list(report.idle(measured.idles))
    yield "large uploads", list(report.large(measured.many))
    yield "plan", list(report.plan(measured.runs))
    yield "goals", list(report.goals(measured))


def _write(path: Path, measured: Measured) -> None:
    content = {
        "machine": {"processor": platform.machine(), "python": platform.python_version(), "cores": os.cpu_count()},
        "runs": [run.summary() for run in measured.runs],
        "idle": [asdict(one) | {"beside_render": one.beside_render} for one in measured.idles],
        "many": [asdict(one) | {"growth": one.growth} for one in measured.many],
        "goals": [asdict(goal) for goal in report.judged(measured)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one round, of a third of the images")
    options.add_argument("--rounds", type=int, help="of each kind of run (3; quick: 1)")
    options.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="at a time (default 1 8 64)")
    options.add_argument("--idle", type=int, default=40, help="uploads one at a time (default 40)")
    options.add_argument("--many", type=int, default=100, help="uploads of ten megabytes at once (default 100)")
    options.add_argument("--json", type=Path, default=FOLDER / "service.json", help="where the figures go")
    options.add_argument("--publish", action="store_true", help="also put figures and plots into docs/")
    given = options.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 3)
    return given


if __name__ == "__main__":
    main()
