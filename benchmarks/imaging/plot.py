"""Draws the measurements as a picture for the docs: the time of each engine as a multiple of this renderer's."""

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path

from benchmarks.imaging.engines import FLOOR, ISOLATED, OURS
from benchmarks.imaging.measuring import Result, ratio

WIDTH, LEFT, RIGHT, TOP, ROW, LEGEND = 860, 150, 30, 96, 34, 16
LEAST, MOST = 0.25, 16.0
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16)
COLOURS = {
    OURS: "#0b7a3e",
    FLOOR: "#8a8a8a",
    "pyvips": "#1f77b4",
    "sharp": "#d62728",
    "OpenCV": "#9467bd",
    "Pillow, draft": "#ff7f0e",
    "Pillow, naive": "#bc8f00",
    "ImageMagick": "#8c564b",
}


def write(path: Path, rows: dict[str, list[Result]]) -> None:
    """Draw one row for each picture, with a dot for each engine that can read it."""
    height = TOP + ROW * len(rows) + 40
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join([*_frame(height), *_legend(), *_rows(rows)])
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Time for three thumbnails, relative to this renderer" '
        f'font-family="system-ui, sans-serif" font-size="13">\n{body}\n</svg>\n',
        encoding="utf-8",
    )


def _x(value: float) -> float:
    share = math.log(min(max(value, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _frame(height: int) -> Iterator[str]:
    yield f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    yield (
        '<text x="16" y="26" font-size="16" font-weight="600" fill="#222">'
        "Time for three thumbnails, as a multiple of this renderer's (one thread each)</text>"
    )
    for tick in TICKS:
        yield f'<path d="M{_x(tick)} {TOP - 8}V{height - 34}" stroke="{"#0b7a3e" if tick == 1 else "#ddd"}"/>'
        yield f'<text x="{_x(tick)}" y="{height - 14}" text-anchor="middle" fill="#555">{tick}x</text>'


def _legend() -> Iterator[str]:
    x = LEGEND
    for name, colour in COLOURS.items():
        yield f'<circle cx="{x + 5}" cy="56" r="5" fill="{colour}"/>'
        yield f'<text x="{x + 15}" y="60" fill="#222">{escape(name)}</text>'
        x += 32 + round(7.4 * len(name))


def _rows(rows: dict[str, list[Result]]) -> Iterator[str]:
    for number, (picture, results) in enumerate(rows.items()):
        y = TOP + ROW * number + ROW // 2
        yield f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end" fill="#222">{escape(picture)}</text>'
        yield f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#f0f0f0"/>'
        ours = next((result for result in results if result.engine == OURS and result.seconds), None)
        for result in reversed(results):  # this renderer, the first, on top
            if ours and result.seconds and result.engine != ISOLATED:
                value = ratio(result, ours)
                yield (
                    f'<circle cx="{_x(value)}" cy="{y}" r="6" fill="{COLOURS[result.engine]}" fill-opacity="0.85">'
                    f"<title>{escape(result.engine)}: {value:.2f}x</title></circle>"
                )
                if value > MOST:
                    yield f'<text x="{_x(value) + 9}" y="{y + 4}" font-size="11" fill="#555">{value:.0f}</text>'
