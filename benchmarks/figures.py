"""Markdown tables of measured figures, and publishing them in ``docs/performance.md`` and README.md."""

import os
import platform
import re
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DOCUMENT: Final = ROOT / "docs" / "performance.md"
README: Final = ROOT / "README.md"
README_BEGIN: Final = "<!-- figures: begin -->"
README_END: Final = "<!-- figures: end -->"
SUMMARY_CLIENTS: Final = "8"
"""README has the images a second of the runs with so many clients."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Returns the lines of a Markdown table with aligned columns: the first to the left, the others to the right."""
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


def publish(name: str, lines: Iterable[str], document: Path = DOCUMENT) -> None:
    """Replace the document's text between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        ValueError: The document does not have exactly one such section.
    """
    _replace(document, f"<!-- {name} -->", f"<!-- /{name} -->", "\n".join(lines))


def publish_summary(document: Path = DOCUMENT, readme: Path = README) -> None:
    """Replace README's figures by those that are published in ``docs/performance.md``."""
    _replace(readme, README_BEGIN, README_END, summary(document))


def summary(document: Path = DOCUMENT) -> str:
    """Returns README's sentences about speed, with the figures that the document has."""
    text = document.read_text(encoding="utf-8")
    speed = {(row[0], row[1]): row[4] for row in _rows(text, "speed")}
    idle = {row[0]: row for row in _rows(text, "idle")}
    growth = {row[0]: row[5] for row in _rows(text, "large uploads")}
    processors = re.findall(r"\d+", _section(text, "<!-- machine -->", "<!-- /machine -->"))[0]

    def rate(run: str) -> str:
        return speed[run, SUMMARY_CLIENTS]

    _, _, answered, _, _, _, _, added = idle["1 MB, distributed"]
    sentences = (
        f"On {processors} processors, which PostgreSQL, RabbitMQ and the clients share, and with fsync on: "
        f"{rate('100 KB, distributed')} images of 100 KB a second from upload to `DONE`, "
        f"or {rate('12 MP, distributed')} photographs of 12 MP "
        f"(standalone: {rate('100 KB, standalone')} and {rate('12 MP, standalone')}). "
        f"An idle service answers an upload of 1 MB after {answered} ms, "
        f"and finishes its thumbnails {added} ms after a bare renderer would. "
        f"A hundred uploads of 10 MB at once take {growth['distributed']} MB of the API's memory."
    )
    return textwrap.fill(sentences, width=120, break_on_hyphens=False)


def published_summary(readme: Path = README) -> str:
    """Returns README's sentences about speed as they are now."""
    return _section(readme.read_text(encoding="utf-8"), README_BEGIN, README_END)


def _rows(text: str, name: str) -> Iterator[list[str]]:
    """Returns the cells of each row of a published table, without its head."""
    for line in _section(text, f"<!-- {name} -->", f"<!-- /{name} -->").splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def _replace(document: Path, begin: str, end: str, content: str) -> None:
    text = document.read_text(encoding="utf-8")
    start, stop = _place(text, begin, end).span()
    document.write_text(f"{text[:start]}{begin}\n{content}\n{end}{text[stop:]}", encoding="utf-8")


def _section(text: str, begin: str, end: str) -> str:
    return _place(text, begin, end)[1]


def _place(text: str, begin: str, end: str) -> re.Match[str]:
    """Finds the section between two comments; group 1 is its content."""
    found = list(re.finditer(f"{re.escape(begin)}\n(.*?)\n?{re.escape(end)}", text, re.DOTALL))
    if len(found) != 1:
        raise ValueError(f"{len(found)} sections from {begin} to {end}; expected one")
    return found[0]


def machine() -> str:
    """Returns a sentence about the machine that measures."""
    names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return f"Measured on {os.cpu_count()} processors ({names[0] if names else platform.machine()}), Python {python()}."


def python() -> str:
    """Returns the version of this Python, and how it was compiled, as far as its configuration tells."""
    settings = ("CONFIG_ARGS", "PY_CFLAGS", "PY_CFLAGS_NODIST", "PY_LDFLAGS_NODIST")
    flags = " ".join(sysconfig.get_config_var(name) or "" for name in settings)
    compiled = optimizations(flags)
    return f"{platform.python_version()} ({platform.python_compiler()}, {compiled})"


def optimizations(flags: str) -> str:
    """Returns which of PGO and LTO the options that Python was configured and compiled with ask for."""
    known = {"PGO": ("--enable-optimizations", "-fprofile-use"), "LTO": ("--with-lto", "-flto")}
    found = [name for name, options in known.items() if any(option in flags for option in options)]
    return " and ".join(found) or "without PGO and LTO"


if __name__ == "__main__":
    publish_summary()
