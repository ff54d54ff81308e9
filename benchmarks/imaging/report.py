"""Formats the measurements as a table."""

import statistics
from collections.abc import Iterator

from benchmarks.imaging.engines import FLOOR, ISOLATED, OURS
from benchmarks.imaging.measuring import Result, ratio

NOT_PEERS = (OURS, ISOLATED, FLOOR)


def table(results: list[Result]) -> Iterator[str]:
    """Yield lines of text: one engine each, the fastest first, then those that failed."""
    done = sorted(
        (result for result in results if result.seconds), key=lambda result: statistics.median(result.seconds)
    )
    by_name = {result.engine: result for result in done}
    yield (
        f"  {'engine':<24}{'ms':>8}{'/ floor':>9}{'/ ours':>8}{'CPU ms':>8}{'CPU / ours':>12}{'MB':>6}"
        "   SSIM 1200, 300, 100"
    )
    for result in done:
        to_floor = _ratio(result, by_name.get(FLOOR))
        to_ours = _ratio(result, by_name.get(OURS))
        yield (
            f"  {result.engine:<24}{statistics.median(result.seconds) * 1000:>8.1f}{to_floor:>9}{to_ours:>8}"
            f"{_milliseconds(result.cpu):>8}{_ratio(result, by_name.get(OURS), cpu=True):>12}"
            f"{result.peak_memory / 1e6:>6.0f}   {', '.join(f'{value:.4f}' for value in result.ssim.values())}"
        )
    for result in results:
        if result.error:
            yield f"  {result.engine:<24} failed: {result.error.splitlines()[0][:90]}"
    ours, peers = by_name.get(OURS), [result for result in done if result.engine not in NOT_PEERS]
    if ours and peers:
        best = max(peers, key=lambda peer: ratio(ours, peer))
        yield f"  ours / best peer ({best.engine}): {ratio(ours, best):.2f}, CPU {ratio(ours, best, cpu=True):.2f}"


def _against(one: Result, results: list[Result]) -> float:
    """Its time through that of the first that was measured: within each round, so that noise does not change places."""
    return ratio(one, next(result for result in results if result.seconds))


def _ratio(one: Result, other: Result | None, *, cpu: bool = False) -> str:
    if other is None or (cpu and not (one.cpu and other.cpu)):
        return "-"
    return f"{ratio(one, other, cpu=cpu):.2f}"


def _milliseconds(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.1f}" if seconds else "-"
