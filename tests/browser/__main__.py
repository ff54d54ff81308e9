"""Prints how the service and the browser show every case, worst first."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.chromium import Chromium
from tests.browser.cases import all_cases
from tests.browser.comparison import HEADING, Comparison, compare


def main() -> int:
    """Print the table; return 1 if a picture differs that should not."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description=__doc__)
    parser.add_argument("text", nargs="?", default="", help="only cases whose name contains it")
    parser.add_argument("--in-order", action="store_true", help="in the order of the cases, not worst first")
    options = parser.parse_args()
    found = list(_compare(options.text))
    if not options.in_order:
        found.sort(key=lambda each: (-each.p99, -each.mean, each.case.name))
    wrong = [each for each in found if not each.alike and not each.case.difference]
    lines = [HEADING, *map(str, found), f"{len(found)} cases, {len(wrong)} different"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong else 0


def _compare(text: str) -> Iterator[Comparison]:
    with Chromium() as browser, TemporaryDirectory() as folder:
        for case in all_cases():
            if text in case.name:
                yield compare(case, browser, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
