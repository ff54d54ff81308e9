"""Measures in interleaved rounds: every engine renders the same picture once a round, in warm processes."""

import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.imaging.engines import FLOOR, ISOLATED, OURS, Engine, Worker
from benchmarks.imaging.quality import references, ssim

WARM_UP = 2


@dataclass(slots=True)
class Result:
    """The measurements of one engine on one picture, over all rounds."""

    engine: str
    version: str
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_memory: int = 0
    ssim: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def summary(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return asdict(self)


def ratio(one: Result, other: Result, *, cpu: bool = False) -> float:
    """Return the median over the rounds of one's time divided by the other's: disturbances of a round slow both."""
    ones, others = (one.cpu, other.cpu) if cpu else (one.seconds, other.seconds)
    return statistics.median(a / b for a, b in zip(ones, others, strict=True))


def measure(source: Path, engines: Iterable[Engine], rounds: int, processor: int) -> list[Result]:
    """Return the results of the engines, in their order; one that cannot read the picture has an error.

    Args:
        source: The picture.
        engines: The engines to compare; each runs in a process of its own.
        rounds: Renderings by each, without the warm-up.
        processor: The one that all processes run on.
    """
    wanted = [engine for engine in engines if engine.name != FLOOR or source.suffix == ".jpg"]
    with tempfile.TemporaryDirectory() as scratch:
        workers = [Worker(engine, processor) for engine in wanted]
        try:
            results = {worker.name: Result(worker.name, worker.version) for worker in workers}
            folders = {worker.name: _folder(Path(scratch), worker.name) for worker in workers}
            for number in range(-WARM_UP, rounds):
                # Each round begins with another engine, so that none always follows the same one.
                turn = number % len(workers)
                for worker in workers[turn:] + workers[:turn]:
                    _once(worker, source, folders[worker.name], results[worker.name], counts=number >= 0)
        finally:
            for worker in workers:
                worker.close()
        _compare_quality(source, results, folders)
        return list(results.values())


def _folder(scratch: Path, name: str) -> Path:
    folder = scratch / name.replace(" ", "-")
    folder.mkdir()
    return folder


def _once(worker: Worker, source: Path, out: Path, result: Result, *, counts: bool) -> None:
    if result.error:
        return
    answer = worker.render(source, out)
    result.error = answer.get("error")
    if result.error or not counts:
        return
    result.seconds.append(answer["seconds"])
    if worker.name != ISOLATED:  # its decoder process still runs, so that its processor time is unknown
        result.cpu.append(answer["cpu"])
    result.peak_memory = max(result.peak_memory, worker.peak_memory(), answer["children_peak"])


def _compare_quality(source: Path, results: dict[str, Result], folders: dict[str, Path]) -> None:
    """Compare the thumbnails with ideal ones of the sizes that most engines chose."""
    made = {name: folder for name, folder in folders.items() if not results[name].error and name != FLOOR}
    sizes: dict[str, tuple[int, int]] = {}
    for preset in ("1200x1200", "300x300", "100x100"):
        chosen = [_size(folder / preset) for name, folder in made.items() if name != OURS] or [(1, 1)]
        sizes[preset] = statistics.mode(chosen)
    ideal = references(source, sizes)
    for name, folder in made.items():
        results[name].ssim = {preset: ssim(ideal[preset], folder / preset) for preset in sizes}


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
