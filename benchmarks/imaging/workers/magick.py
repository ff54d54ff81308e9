"""ImageMagick: one process for each picture, as it is commonly used; the argument is the program."""

import subprocess
import sys
from pathlib import Path

from benchmarks.imaging.workers.serve import QUALITY, SIZES, names, serve

PROGRAM = sys.argv[1]


def _render(source: Path, out: Path) -> None:
    command = [PROGRAM, "-limit", "thread", "1", "-define", f"jpeg:size={SIZES[0]}x{SIZES[0]}", str(source)]
    command += ["-auto-orient", "-strip", "-quality", str(QUALITY)]
    for size, name in names().items():
        command += ["-resize", f"{size}x{size}>"]
        target = f"jpg:{out / name}"
        command += [target] if size == SIZES[-1] else ["-write", target]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    answer = subprocess.run([PROGRAM, "-version"], check=True, capture_output=True, text=True).stdout
    serve(" ".join(answer.split()[1:3]), _render)
