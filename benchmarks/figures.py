"""Puts measured figures into ``docs/performance.md``, each table between two comments that name it."""

import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

DOCUMENT: Final = Path("docs/performance.md")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table in Markdown, readable as they are: the first column to the left, the others to the right."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for number, row in enumerate(cells):
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"| {' | '.join(padded)} |"
        if not number:
            rules = [
                "-" * (width + 2) if column == 0 else "-" * (width + 1) + ":" for column, width in enumerate(widths)
            ]
            yield f"|{'|'.join(rules)}|"


def publish(name: str, lines: Iterable[str]) -> None:
    """Replace what the document says between ``<!-- name -->`` and ``<!-- /name -->``."""
    text = DOCUMENT.read_text(encoding="utf-8")
    place = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if len(place.findall(text)) != 1:
        raise ValueError(f"{DOCUMENT} has no one place for {name}")
    content = "\n".join(lines)
    DOCUMENT.write_text(place.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text), encoding="utf-8")


def machine() -> str:
    """What it was measured on, as a sentence."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return (
        f"Measured on {os.cpu_count()} processors ({names[0] if names else platform.machine()}), "
        f"Python {platform.python_version()}."
    )
