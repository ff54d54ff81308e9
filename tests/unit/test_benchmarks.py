"""What the benchmarks count with."""

import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from benchmarks import figures
from benchmarks.service import flame
from benchmarks.service.load import get, post
from benchmarks.service.processes import BROKER, CLIENT, DECODE, WORKER, Watch
from benchmarks.service.runs import DISTRIBUTED, Ceiling, Run

BURN = "import time\nwhile time.process_time() < 0.3: pass"
PARENT = (
    f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}], check=True); print(flush=True); input()"
)


def run_with(**cpu: float) -> Run:
    return Run(
        mode=DISTRIBUTED,
        picture="12 MP",
        clients=8,
        images=100,
        wall=5.0,
        answered=(),
        done=(),
        cpu=cpu,
        peaks={},
        log_bytes=0.0,
        stored=0.0,
        processors=2,
        ceiling=Ceiling(rate=25.0, decode=0.05),
    )


def test_the_clients_share_of_all_processors_is_taken_off() -> None:
    run = run_with(**{CLIENT: 2.0, DECODE: 6.0, WORKER: 2.0})
    assert run.rate == 20.0
    assert run.rate_without_client == 25.0
    assert run.of_ceiling == 1.0
    assert run.beside_decode == pytest.approx(0.25)


@pytest.mark.parametrize(("group", "counted_as"), [(WORKER, DECODE), (BROKER, BROKER)])
def test_a_child_that_has_ended_counts(group: str, counted_as: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:  # noqa: S603  (our own)
        assert parent.stdout
        parent.stdout.readline()
        watch = Watch({group: (psutil.Process(parent.pid),)})
        assert watch.seconds()[counted_as] >= 0.28  # in hundredths that are cut off
        assert watch.peaks()[group] >= watch.held()[group] > 1_000_000
        parent.communicate(b"\n")


def test_requests_announce_the_length_of_their_body() -> None:
    head, _, body = post(b"picture").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"picture" in body
    assert b"Content-Length" not in get(UUID(int=1))


def test_figures_replace_those_before_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n")
    monkeypatch.setattr(figures, "DOCUMENT", document)
    figures.publish("speed", figures.table(("picture", "images/s"), [("a", "1.0")]))
    assert document.read_text() == (
        "before\n<!-- speed -->\n| picture | images/s |\n|---------|---------:|\n| a       |      1.0 |\n"
        "<!-- /speed -->\nafter\n"
    )
    with pytest.raises(ValueError, match="no one place"):
        figures.publish("speeds", [])


def test_a_stack_loses_what_every_stack_begins_with_and_where_files_are() -> None:
    plumbing = "thread (12): MainThread;<module> (image-service:8);main (click/core.py:1)"
    assert list(flame.read(f"{plumbing};run (/usr/lib/asyncio/runners.py:118) 3")) == [
        (["run (asyncio/runners.py)"], 3)
    ]


def test_a_flame_is_as_wide_as_its_share_and_what_is_too_narrow_is_left_out(tmp_path: Path) -> None:
    frame = flame.Frame()
    for stack, samples in ((["main", "work"], 750), (["main", "rest"], 249), (["main", "hardly"], 1)):
        frame.add(stack, samples)
    flame.write(tmp_path / "flame.svg", {WORKER: (3.0, frame), BROKER: (1.0, flame.Frame(1))})
    drawing = (tmp_path / "flame.svg").read_text(encoding="utf-8")
    titles = re.findall(r"<title>(.+?)</title>", drawing)
    below = ["main: 3.00 ms", "work: 2.25 ms", "rest: 0.75 ms"]
    assert titles == ["worker, 3.0 ms: 3.00 ms", *below, "broker, 1.0 ms: 1.00 ms"]
