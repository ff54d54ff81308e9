"""What the pages for operators name is there: tests, headings, events, commands."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from image_service.cli import app

ROOT = Path(__file__).parents[2]
RELIABILITY, RUNBOOK = ROOT / "docs/reliability.md", ROOT / "docs/runbook.md"
SECURITY = ROOT / "docs/security.md"
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
ROWS = [line for line in RELIABILITY.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
PROOFS = [(text, path) for row in ROWS for text, path, _ in LINK.findall(row) if "/tests/" in path]
WINDOWS = sorted({text.strip("`") for text, _ in PROOFS if text.startswith("`")})


@pytest.mark.parametrize(("text", "path"), sorted({proof for proof in PROOFS if not proof[0].startswith("`")}))
def test_every_proof_is_a_test_or_a_scenario(text: str, path: str) -> None:
    name = text.replace(" ", "_")
    named = functions_of(RELIABILITY.parent / path)
    assert name in named if path.endswith("scenarios.py") else f"test_{name}" in named


@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_is_one_that_is_tested(window: str) -> None:
    assert f'"{window}": ' in (ROOT / "tests/faults/kill_points.py").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\btest_\w+(?:\.py)?", SECURITY.read_text()))))
def test_every_test_that_the_threat_model_names_exists(name: str) -> None:
    files = list((ROOT / "tests").rglob("test_*.py"))
    if name.endswith(".py"):
        assert name in {path.name for path in files}
    else:
        assert any(f"def {name}(" in path.read_text() for path in files) or f"{name}.py" in {
            path.name for path in files
        }


def test_every_row_of_the_failure_windows_has_a_proof() -> None:
    assert ROWS
    assert [int(row.split("|")[1]) for row in ROWS] == [*range(1, len(ROWS) + 1)]
    assert [row for row in ROWS if "](../tests/" not in row.rpartition(" | ")[2]] == []


@pytest.mark.parametrize(
    "page", [RELIABILITY, RUNBOOK, SECURITY, *sorted((ROOT / "docs/decisions").glob("0*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for _, path, anchor in LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors_of(target), anchor


def test_every_warning_and_error_in_the_log_is_in_the_runbook() -> None:
    events = {event for file in (ROOT / "src").rglob("*.py") for event in complaints_of(file)}
    assert "messages were dead-lettered" in events
    assert {event for event in events if f"`{event}`" not in RUNBOOK.read_text()} == set()


def test_every_command_in_the_runbook_exists() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    named = re.findall(r"(?:worker |`)image-service ([a-z-]+)", RUNBOOK.read_text())
    assert {"check", "requeue", "backfill", "dead-letters", "migrate"} <= set(named) <= group.commands.keys()


@cache
def functions_of(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def anchors_of(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def complaints_of(file: Path) -> Iterator[str]:
    """The events that a module logs as a warning or an error, where they stand in the call itself."""
    for node in ast.walk(ast.parse(file.read_text())):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"_log.warning", "_log.error", "_log.exception"}
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)
