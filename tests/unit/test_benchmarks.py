"""The calculations of the benchmarks, and their published figures."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from benchmarks import figures
from benchmarks.service import flame, report
from benchmarks.service.__main__ import sections
from benchmarks.service.ingest import measure_ingest
from benchmarks.service.load import get, post
from benchmarks.service.processes import BROKER, CLIENT, DECODE, WORKER, ResourceUsage
from benchmarks.service.report import Measured
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


def test_overhead_and_floor_are_ratios_of_processor_time() -> None:
    run = run_with(**{CLIENT: 2.0, DECODE: 6.0, WORKER: 2.0, BROKER: 1.0})
    assert run.overhead == pytest.approx(0.5)
    assert run.of_floor(ingest=0.01) == pytest.approx(1.5)
    head, _, row = report.overhead([run], {"12 MP": 0.01})
    assert [cell.strip() for cell in head.strip("|").split("|")][4] == "overhead"
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["12 MP, distributed", "8", "90.0", "60.0", "50%", "50.0", "10.0", "1.50"]


@pytest.mark.parametrize("size", [1, 300_000])
def test_bare_ingest_stores_what_was_sent(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert measure_ingest(content, 3, tmp_path) > 0
    stored = list(tmp_path.iterdir())
    assert len(stored) > 3
    assert {file.read_bytes() for file in stored} == {content}
    assert {file.name.partition("-")[2] for file in stored} == {hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("'--enable-shared' -O3", "without PGO and LTO"),
        ("'--enable-optimizations' '--with-lto'", "PGO and LTO"),
        ("-fprofile-use -O2", "PGO"),
        ("-flto=auto", "LTO"),
    ],
)
def test_optimizations_of_python_are_read_from_its_options(flags: str, found: str) -> None:
    assert figures.optimizations(flags) == found
    assert re.fullmatch(r"\d+\.\d+\.\d+\S* \(.+, .*(PGO|LTO)\)", figures.python())


def test_every_table_has_a_place_in_the_document(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(figures.DOCUMENT.read_text())
    nothing = Measured(runs=(), ingest={}, idle=(), large_uploads=())
    for name, lines in sections(nothing):
        figures.publish(name, lines, document)
    assert "| overhead |" in document.read_text()


def test_readme_is_written_with_the_sentence_about_the_machine(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(figures.DOCUMENT.read_text())
    figures.publish("machine", [figures.machine()], document)
    assert figures.summary(document).startswith(f"On {os.cpu_count()} processors")


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
