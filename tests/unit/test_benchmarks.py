"""The calculations of the benchmarks, and their published figures."""

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
from benchmarks.service.processes import BROKER, CLIENT, DECODE, WORKER, ResourceUsage
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


def test_speed_is_corrected_for_the_clients_share_of_the_processors() -> None:
    run = run_with(**{CLIENT: 2.0, DECODE: 6.0, WORKER: 2.0})
    assert run.rate == 20.0
    assert run.rate_without_client == 25.0
    assert run.of_ceiling == 1.0
    assert run.beside_decode == pytest.approx(0.25)


@pytest.mark.parametrize(("group", "counted_as"), [(WORKER, DECODE), (BROKER, BROKER)])
def test_processor_time_includes_ended_children(group: str, counted_as: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:  # noqa: S603  (a constant command)
        assert parent.stdout
        parent.stdout.readline()
        usage = ResourceUsage({group: (psutil.Process(parent.pid),)})
        assert usage.seconds()[counted_as] >= 0.28  # rounded down to hundredths
        assert usage.peaks()[group] >= usage.resident()[group] > 1_000_000
        parent.communicate(b"\n")


def test_requests_have_the_length_of_their_body() -> None:
    head, _, body = post(b"picture").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"picture" in body
    assert b"Content-Length" not in get(UUID(int=1))


def test_publish_replaces_one_section(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n")
    figures.publish("speed", figures.table(("picture", "images/s"), [("a", "1.0")]), document)
    assert document.read_text() == (
        "before\n<!-- speed -->\n| picture | images/s |\n|---------|---------:|\n| a       |      1.0 |\n"
        "<!-- /speed -->\nafter\n"
    )
    with pytest.raises(ValueError, match="0 sections from <!-- speeds --> to <!-- /speeds -->"):
        figures.publish("speeds", [], document)


def test_readme_has_the_published_figures() -> None:
    assert figures.published_summary() == figures.summary(), "run `make docs`"


def test_publish_summary_replaces_the_figures_of_the_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{figures.README_BEGIN}\nold\n{figures.README_END}\nafter\n")
    figures.publish_summary(readme=readme)
    assert readme.read_text() == (f"before\n{figures.README_BEGIN}\n{figures.summary()}\n{figures.README_END}\nafter\n")


def test_stacks_are_read_without_startup_frames_and_folders() -> None:
    module = "_run_module_as_main (<frozen runpy>:198);<module> (image_service/__main__.py:6)"
    startup = f"thread (12): MainThread;{module};main (click/core.py:1)"
    assert list(flame.read(f"{startup};run (/usr/lib/asyncio/runners.py:118) 3")) == [(["run (asyncio/runners.py)"], 3)]


def test_flame_widths_are_shares_and_narrow_frames_are_left_out(tmp_path: Path) -> None:
    frame = flame.Frame()
    for stack, samples in ((["main", "work"], 750), (["main", "rest"], 249), (["main", "hardly"], 1)):
        frame.add(stack, samples)
    flame.write(tmp_path / "flame.svg", {WORKER: (3.0, frame), BROKER: (1.0, flame.Frame(1))})
    drawing = (tmp_path / "flame.svg").read_text(encoding="utf-8")
    titles = re.findall(r"<title>(.+?)</title>", drawing)
    below = ["main: 3.00 ms", "work: 2.25 ms", "rest: 0.75 ms"]
    assert titles == ["worker, 3.0 ms: 3.00 ms", *below, "broker, 1.0 ms: 1.00 ms"]
