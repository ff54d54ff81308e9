"""Draws the processor time of a small image by function, as an inverted flame graph.

    make bench-flame

API, worker and one decoder process are sampled while eight clients upload. In API and worker, the thread that holds the
GIL is sampled. The width of a process is its processor time for an image, as the kernel counts it.
"""

import argparse
import asyncio
import os
import re
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.service.pictures import SMALL
from benchmarks.service.processes import API, BROKER, DATABASE, DECODE, WORKER
from benchmarks.service.runs import Plan, Run, ServiceUnderTest, distributed, measure, measure_ceiling

SAMPLER: Final = Path(".venv-bench/bin/py-spy")
DRAWING: Final = Path("build/bench/flame.svg")
CLIENTS: Final = 8
WARM_UP: Final = 100
_SAMPLES_A_SECOND: Final = 250
_WIDTH, _ROW, _TOP = 1200, 17, 60
_NARROWEST: Final = 2.0
"""Narrower boxes are left out. In pixels."""
_LETTER: Final = 6.4
"""Width of a letter, in pixels."""
_COLOURS: Final = {API: "#7fb2e5", WORKER: "#ffb36b", DECODE: "#7fc49a", DATABASE: "#c3a6e0", BROKER: "#eb9c9c"}
_FRAME: Final = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(:\d+)?\)")
_STARTUP: Final = re.compile(r"click/|typer/|<module>|runpy|_bootstrap|^thread ")
"""Frames with which every stack begins."""


@dataclass(slots=True)
class Frame:
    """Samples of a function in one call path, and of the functions that it called."""

    samples: int = 0
    calls: dict[str, "Frame"] = field(default_factory=dict)

    def add(self, stack: Iterable[str], samples: int) -> None:
        """Add samples of a stack; the outermost call comes first."""
        frame = self
        frame.samples += samples
        for name in stack:
            frame = frame.calls.setdefault(name, Frame())
            frame.samples += samples


def read(raw: str) -> Iterator[tuple[list[str], int]]:
    """Parses the sampler's output: stacks without start-up frames, line numbers and folders, and their samples."""
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        yield [_name(frame) for frame in stack.split(";") if not _STARTUP.search(frame)], int(samples)


def _name(frame: str) -> str:
    found = _FRAME.fullmatch(frame)
    return f"{found['function']} ({'/'.join(found['file'].split('/')[-2:])})" if found else frame


def draw(roots: dict[str, tuple[float, Frame]]) -> Iterator[str]:
    """Yields the boxes of all frames. A process is as wide as its milliseconds."""
    total = sum(milliseconds for milliseconds, _ in roots.values())
    left = 0.0
    for name, (milliseconds, frame) in roots.items():
        width = _WIDTH * milliseconds / total
        yield from _boxes(f"{name}, {milliseconds:.1f} ms", frame, left, width, 0, _COLOURS[name], milliseconds)
        left += width


def _boxes(  # noqa: PLR0913, PLR0917 — a box has two sides, a row, a colour and a name
    name: str, frame: Frame, left: float, width: float, row: int, colour: str, milliseconds: float
) -> Iterator[str]:
    y = _TOP + row * _ROW
    text = escape(name if len(name) * _LETTER < width else name[: max(0, int(width / _LETTER) - 1)])
    yield (
        f'<g><title>{escape(name)}: {milliseconds:.2f} ms</title><rect x="{left:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_ROW - 1}" fill="{colour}" stroke="#fff" stroke-width=".5"/>'
        f'<text x="{left + 3:.1f}" y="{y + 12}">{text}</text></g>'
    )
    for callee, called in sorted(frame.calls.items(), key=lambda call: -call[1].samples):
        share = called.samples / frame.samples
        if width * share >= _NARROWEST:
            yield from _boxes(callee, called, left, width * share, row + 1, colour, milliseconds * share)
            left += width * share


def write(path: Path, roots: dict[str, tuple[float, Frame]]) -> None:
    """Write the drawing as SVG."""
    boxes = list(draw(roots))
    height = max(int(y) for box in boxes for y in re.findall(r'<rect [^>]*\by="(\d+)"', box)) + _ROW + 10
    title = "The processor time of an image of 100 KB, by process and function; point at a box for its name"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="#222">\n<rect width="{_WIDTH}" height="{height}" '
        f'fill="#fff"/>\n<text x="8" y="30" font-size="16" font-weight="600">{title}</text>\n'
        + "\n".join(boxes)
        + "\n</svg>\n",
        encoding="utf-8",
    )


async def _sampled(pid: int, seconds: int, *options: str) -> str:
    """Samples a process; returns the sampler's output."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        arguments = ("--pid", str(pid), "--duration", str(seconds), "--rate", str(_SAMPLES_A_SECOND), *options)
        sampler = await asyncio.create_subprocess_exec(
            SAMPLER, "record", *arguments, "--format", "raw", "--output", raw, stdout=DEVNULL, stderr=DEVNULL
        )
        if await sampler.wait():
            raise SystemExit(f"{SAMPLER} failed; it may need to run as root.")
        return await asyncio.to_thread(raw.read_text, encoding="utf-8")


async def _measured(service: ServiceUnderTest, given: argparse.Namespace) -> tuple[Run, dict[str, Frame]]:
    content, processors = SMALL.content(), os.cpu_count() or 1
    frames = {API: Frame(), WORKER: Frame(), DECODE: Frame()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.jpg"
        file.write_bytes(content)

        def plan(images: int) -> Plan:
            return Plan(picture=SMALL.name, file=file, clients=CLIENTS, images=images, processors=processors)

        ceiling = await measure_ceiling(content, WARM_UP, processors)
        warm = await measure(service, plan(WARM_UP), ceiling)
        async with asyncio.TaskGroup() as tasks:
            samplers = {
                name: tasks.create_task(_sampled(service.usage.pids(name)[0], given.seconds, *options))
                for name, options in ((API, ("--gil",)), (WORKER, ("--gil",)), (DECODE, ()))
            }
            run = await measure(service, plan(int(given.seconds * warm.rate)), ceiling)
    for name, sampler in samplers.items():
        for stack, samples in read(sampler.result()):
            frames[name].add(stack, samples)
    return run, frames


def main() -> None:
    """Measure and draw."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=12, help="duration of the sampling (default 12)")
    options.add_argument("--svg", type=Path, default=DRAWING, help="file for the drawing")
    given = options.parse_args()
    with distributed(os.cpu_count() or 1) as service:
        run, frames = asyncio.run(_measured(service, given))
    write(
        given.svg,
        {name: (run.cpu[name] / run.images * 1000, frames.get(name, Frame(1))) for name in _COLOURS if name in run.cpu},
    )
    print(f"{run.rate:.0f} images/s while sampled; written: {given.svg}")


if __name__ == "__main__":
    main()
