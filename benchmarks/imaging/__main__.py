"""Compares this renderer with its peers: time, processor time, memory and quality, in one run.

    make bench-imaging                    or: make bench-imaging ARGS="--quick --only '12 MP JPEG'"

Every engine makes the same three thumbnails (fit inside 1200, 300 and 100 pixels, JPEG quality 82, upright, without
metadata) in a warm process of its own, one after the other, on one processor and with one thread. Ratios are medians
over interleaved rounds. The floor, for JPEG only, is libjpeg-turbo's decode at the smallest scale that covers 1200
pixels, and three encodes of the right sizes, with no resizing between them. SSIM compares with a full decode that was
resampled with Lanczos in 64-bit floating point and never encoded.
"""

import argparse
import json
import os
import platform
from pathlib import Path

from benchmarks.imaging import inputs, measuring, plot, report
from benchmarks.imaging.engines import engines

FOLDER = Path("build/bench-imaging")
PLOT = Path("docs/imaging-speed.svg")
QUICK = ("12 MP JPEG", "12 MP PNG", "12 MP WebP")


def main() -> None:
    """Measure, print tables, and write JSON and a plot."""
    options = _options()
    wanted = [one for one in inputs.INPUTS if one.name in (options.only or (QUICK if options.quick else _names()))]
    rounds = options.rounds or (5 if options.quick else 15)
    processor = max(os.sched_getaffinity(0))
    compared = list(engines(FOLDER))
    source = options.photographs or f"{', '.join(inputs.PHOTOGRAPHS)} of {' and '.join(inputs.PACKAGES)}"
    print(f"{rounds} rounds, all engines on processor {processor} with one thread each")
    print(f"pictures: tiles of {inputs.TILE[0]}x{inputs.TILE[1]} pixels, unscaled, from {source}\n")
    rows: dict[str, list[measuring.Result]] = {}
    for one in wanted:
        file = inputs.make(one, FOLDER, options.photographs)
        print(f"{one.name}: {one.size[0]}x{one.size[1]}, {file.stat().st_size / 1e6:.1f} MB")
        rows[one.name] = measuring.measure(file, compared, rounds, processor)
        print("\n".join(report.table(rows[one.name])), end="\n\n", flush=True)
    print("versions:", "; ".join(f"{one.engine}: {one.version}" for one in next(iter(rows.values()))))
    _write(options.json, rounds, str(source), rows)
    complete = len(wanted) == len(inputs.INPUTS)
    drawing = PLOT if complete else FOLDER / PLOT.name
    plot.write(drawing, rows)
    print(f"written: {options.json}, {drawing}")


def _names() -> list[str]:
    return [one.name for one in inputs.INPUTS]


def _write(path: Path, rounds: int, source: str, rows: dict[str, list[measuring.Result]]) -> None:
    content = {
        "machine": {"processor": platform.machine(), "python": platform.python_version(), "cores": os.cpu_count()},
        "photographs": source,
        "rounds": rounds,
        "pictures": {name: [result.summary() for result in results] for name, results in rows.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, help="renderings of each picture by each engine (15; quick: 5)")
    options.add_argument("--only", action="append", choices=_names(), help="only this picture (repeatable)")
    options.add_argument("--quick", action="store_true", help=f"few rounds of {', '.join(QUICK)}")
    options.add_argument("--json", type=Path, default=FOLDER / "results.json", help="file for the results")
    options.add_argument("--photographs", type=Path, help="a folder with JPEG photographs of your own to use")
    return options.parse_args()


if __name__ == "__main__":
    main()
