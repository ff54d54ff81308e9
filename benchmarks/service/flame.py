"""What the processor time of a small image goes into, function by function: a flame graph, upside down.

    make bench-flame

API, worker and a decoder are sampled while eight clients upload: the first two in whichever thread runs Python at the
moment. Each process is as wide as its processor time of an image, by the kernel's count.
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
from benchmarks.service.runs import Plan, Run, Running, ceiling, distributed, measure

SAMPLER: Final = Path(".venv-bench/bin/py-spy")
DRAWING: Final = Path("build/bench/flame.svg")
CLIENTS: Final = 8
WARM_UP: Final = 100
_SAMPLES_A_SECOND: Final = 250
_WIDTH, _ROW, _TOP = 1200, 17, 60
_NARROWEST: Final = 2.0
"""Pixels of a box that is still drawn."""
_LETTER: Final = 6.4
"""Pixels."""
_COLOURS: Final = {API: "#7fb2e5", WORKER: "#ffb36b", DECODE: "#7fc49a", DATABASE: "#c3a6e0", BROKER: "#eb9c9c"}
_FRAME: Final = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(:\d+)?\)")
_PLUMBING: Final = re.compile(r"click/|typer/|<module>|_bootstrap|^thread ")
"""What every stack begins with."""


@dataclass(slots=True)
class Frame:
    """A function, by who called it, and what it called."""

    samples: int = 0
    calls: dict[str, "Frame"] = field(default_factory=dict)

    def add(self, stack: Iterable[str], samples: int) -> None:
        """Count samples of a stack, outermost call first."""
        frame = self
        frame.samples += samples
        for name in stack:
            frame = frame.calls.setdefault(name, Frame())
            frame.samples += samples


def read(raw: str) -> Iterator[tuple[list[str], int]]:
    """The stacks in what the sampler writes, without files' folders, lines and what begins each of them."""
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        yield [_name(frame) for frame in stack.split(";") if not _PLUMBING.search(frame)], int(samples)


def _name(frame: str) -> str:
    found = _FRAME.fullmatch(frame)
    return f"{found['function']} ({'/'.join(found['file'].split('/')[-2:])})" if found else frame


def drawn(roots: dict[str, tuple[float, Frame]]) -> Iterator[str]:
    """Boxes of all frames below processes, each of which is as wide as its milliseconds."""
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
    words = escape(name if len(name) * _LETTER < width else name[: max(0, int(width / _LETTER) - 1)])
    yield (
        f'<g><title>{escape(name)}: {milliseconds:.2f} ms</title><rect x="{left:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_ROW - 1}" fill="{colour}" stroke="#fff" stroke-width=".5"/>'
        f'<text x="{left + 3:.1f}" y="{y + 12}">{words}</text></g>'
    )
    for called, below in sorted(frame.calls.items(), key=lambda call: -call[1].samples):
        share = below.samples / frame.samples
        if width * share >= _NARROWEST:
            yield from _boxes(called, below, left, width * share, row + 1, colour, milliseconds * share)
            left += width * share


def write(path: Path, roots: dict[str, tuple[float, Frame]]) -> None:
    """Draw them."""
    boxes = list(drawn(roots))
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
    """The stacks of a process, as the sampler writes them."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        arguments = ("--pid", str(pid), "--duration", str(seconds), "--rate", str(_SAMPLES_A_SECOND), *options)
        sampler = await asyncio.create_subprocess_exec(
            SAMPLER, "record", *arguments, "--format", "raw", "--output", raw, stdout=DEVNULL, stderr=DEVNULL
        )
        if await sampler.wait():
            raise SystemExit(f"{SAMPLER} failed: it may have to be run as root.")
        return await asyncio.to_thread(raw.read_text, encoding="utf-8")


async def _measured(running: Running, given: argparse.Namespace) -> tuple[Run, dict[str, Frame]]:
    content, processors = SMALL.content(), os.cpu_count() or 1
    frames = {API: Frame(), WORKER: Frame(), DECODE: Frame()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.jpg"
        file.write_bytes(content)

        def plan(images: int) -> Plan:
            return Plan(picture=SMALL.name, file=file, clients=CLIENTS, images=images, processors=processors)

        most = await ceiling(content, WARM_UP, processors)
        warm = await measure(running, plan(WARM_UP), most)
        async with asyncio.TaskGroup() as tasks:
            samplers = {
                name: tasks.create_task(_sampled(running.watch.pids(name)[0], given.seconds, *options))
                for name, options in ((API, ("--gil",)), (WORKER, ("--gil",)), (DECODE, ()))
            }
            run = await measure(running, plan(int(given.seconds * warm.rate)), most)
    for name, sampler in samplers.items():
        for stack, samples in read(sampler.result()):
            frames[name].add(stack, samples)
    return run, frames


def main() -> None:
    """Measure and draw."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=12, help="to sample for (default 12)")
    options.add_argument("--svg", type=Path, default=DRAWING, help="where the drawing goes")
    given = options.parse_args()
    with distributed(os.cpu_count() or 1) as running:
        run, frames = asyncio.run(_measured(running, given))
    write(
        given.svg,
        {name: (run.cpu[name] / run.images * 1000, frames.get(name, Frame(1))) for name in _COLOURS if name in run.cpu},
    )
    print(f"{run.rate:.0f} images/s while sampled; written: {given.svg}")


if __name__ == "__main__":
    main()
