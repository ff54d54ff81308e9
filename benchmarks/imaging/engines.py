"""The compared engines, each a long-lived process that reads and writes lines of JSON."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "image-service"
ISOLATED = "image-service, isolated"
FLOOR = "floor"
MAGICK = "ImageMagick"
SHARP = "sharp"
WORKERS = "benchmarks.imaging.workers"
ONE_THREAD = {"VIPS_CONCURRENCY": "1", "OMP_NUM_THREADS": "1", "UV_THREADPOOL_SIZE": "1"}


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that makes thumbnails."""

    name: str
    command: tuple[str, ...]


class Worker:
    """A running engine."""

    def __init__(self, engine: Engine, processor: int) -> None:
        """Start it on the given processor, and wait until it is ready."""
        self.name = engine.name
        self._process = subprocess.Popen(
            engine.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD},
            preexec_fn=lambda: os.sched_setaffinity(0, {processor}),  # noqa: PLW1509 — before there are any threads
        )
        self.version = str(self._answer()["version"])

    def render(self, source: Path, out: Path) -> dict[str, Any]:
        """Render one picture; returns ``seconds``, ``cpu`` and ``children_peak``, or an ``error``."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"source": str(source), "out": str(out)}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def peak_memory(self) -> int:
        """Return the peak resident memory, in bytes, of the process or one of its running children."""
        return max(_peak(pid) for pid in _family(self._process.pid))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(f"{self.name} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def engines(folder: Path) -> Iterator[Engine]:
    """Yield every installed engine; prints the missing ones.

    Args:
        folder: Where sharp was installed.
    """
    ours = str(Path(".venv/bin/python").absolute())
    yield Engine(OURS, (ours, "-m", f"{WORKERS}.ours"))
    yield Engine(ISOLATED, (ours, "-m", f"{WORKERS}.isolated"))
    for name, *module in (
        (FLOOR, "floor"),
        ("pyvips", "vips"),
        ("OpenCV", "opencv"),
        ("Pillow, draft", "pillow", "draft"),
        ("Pillow, naive", "pillow"),
    ):
        yield Engine(name, (sys.executable, "-m", f"{WORKERS}.{module[0]}", *module[1:]))
    node, script = shutil.which("node"), Path(__file__).parent / "workers" / "sharp.cjs"
    if node and (folder / "node_modules" / "sharp").exists():
        yield Engine(SHARP, (node, str(script), str(folder.absolute())))
    else:
        print("sharp is missing: it needs node and npm.")
    magick = _magick()
    if magick:
        yield Engine(MAGICK, (sys.executable, "-m", f"{WORKERS}.magick", magick))
    else:
        print("ImageMagick is missing: install the package imagemagick.")


def _magick() -> str | None:
    """Return the ImageMagick program on the PATH; other programs have the same names."""
    for folder in os.get_exec_path():
        for name in ("magick", "convert"):
            program = shutil.which(name, path=folder)
            if program and "ImageMagick" in _output(program, "-version").partition("\n")[0]:
                return program
    return None


def _output(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def _family(pid: int) -> Iterator[int]:
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text(encoding="ascii").split():
            yield from _family(int(child))


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
