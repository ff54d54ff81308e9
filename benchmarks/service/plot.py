"""Draws two diagrams: speed as a share of the ceiling, and the processor time of an image by process."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.service.processes import API, BOTH, BROKER, CLIENT, DATABASE, DECODE, WORKER
from benchmarks.service.runs import Run

_WIDTH: Final = 860
_LEFT: Final = 260
_RIGHT: Final = 110
_TOP: Final = 84
_ROW: Final = 30
_FULL: Final = 1.0
_COLOURS: Final = {
    DECODE: "#0b7a3e",
    API: "#1f77b4",
    WORKER: "#ff7f0e",
    BOTH: "#bc8f00",
    DATABASE: "#9467bd",
    BROKER: "#d62728",
    CLIENT: "#b0b0b0",
}


def write_speed(path: Path, runs: Sequence[Run]) -> None:
    """Draw a bar for each run: its images a second, without the client's share, as a share of the bare renderer's."""
    most = max(_FULL, *(run.of_ceiling for run in runs))
    body: list[str] = []
    for number, run in enumerate(runs):
        y, width = _TOP + _ROW * number, round(_span() * run.of_ceiling / most, 1)
        body += _label(run, y)
        body.append(f'<rect x="{_LEFT}" y="{y}" width="{width}" height="{_ROW - 10}" fill="{_COLOURS[DECODE]}"/>')
        body.append(_text(_LEFT + width + 6, y + 15, f"{run.of_ceiling:.0%}, {run.rate:.0f}/s"))
    ceiling = round(_LEFT + _span() * _FULL / most, 1)
    body.append(f'<path d="M{ceiling} {_TOP - 8}V{_TOP + _ROW * len(runs)}" stroke="#222" stroke-dasharray="4 3"/>')
    _write(path, "Images a second, as a share of the bare renderer's on the same processors", body, len(runs))


def write_processor_time(path: Path, runs: Sequence[Run]) -> None:
    """Draw a bar for each run, with a segment for each group of processes."""
    body: list[str] = []
    x = 16
    for name, colour in _COLOURS.items():
        body.append(f'<rect x="{x}" y="44" width="12" height="12" fill="{colour}"/>')
        body.append(_text(x + 17, 55, name))
        x += 40 + round(7.4 * len(name))
    for number, run in enumerate(runs):
        y, at, total = _TOP + _ROW * number, float(_LEFT), sum(run.cpu.values())
        body += _label(run, y)
        for name, colour in _COLOURS.items():
            width = _span() * run.cpu.get(name, 0.0) / total
            body.append(
                f'<rect x="{at:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 10}" fill="{colour}">'
                f"<title>{escape(name)}: {run.cpu.get(name, 0.0) / run.images * 1000:.1f} ms</title></rect>"
            )
            at += width
        body.append(_text(at + 6, y + 15, f"{total / run.images * 1000:.1f} ms"))
    _write(path, "Processor time of an image, by process", body, len(runs))


def _span() -> int:
    return _WIDTH - _LEFT - _RIGHT


def _label(run: Run, y: int) -> Iterator[str]:
    clients = f"{run.clients} client{'s' if run.clients > 1 else ''}"
    yield _text(_LEFT - 12, y + 15, f"{run.picture}, {run.mode}, {clients}", anchor="end")


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{round(x, 1)}" y="{y}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'


def _write(path: Path, title: str, body: Sequence[str], rows: int) -> None:
    height = _TOP + _ROW * rows + 16
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f'<text x="16" y="26" font-size="16" font-weight="600" fill="#222">{escape(title)}</text>'
    content = "\n".join([f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>', head, *body])
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">\n{content}\n</svg>\n',
        encoding="utf-8",
    )
