"""What the documents promise about codes and settings is what the program does."""

import re
from pathlib import Path

import pytest

from image_service import errors
from image_service.api.problems import STATUS
from image_service.config import Settings

ROOT = Path(__file__).parents[2]


def kinds(base: type[errors.ServiceError] = errors.ServiceError) -> list[type[errors.ServiceError]]:
    """Every kind of error that has a code of its own."""
    below = [kind for child in base.__subclasses__() for kind in kinds(child)]
    return [*([base] if "code" in vars(base) else []), *below]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.code)
def test_every_code_is_documented_with_its_status_and_meaning(kind: type[errors.ServiceError]) -> None:
    rows = [line for line in (ROOT / "docs/errors.md").read_text().splitlines() if f"| `{kind.code}` |" in line]
    status = f"| {STATUS[kind.code].value} " if kind.code in STATUS else ""
    assert rows == [f"{status}| `{kind.code}` | {kind.__doc__} |"]


def test_the_documents_name_no_code_that_does_not_exist() -> None:
    named = re.findall(r"^\|(?: \d+ \|)? `([a-z-]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert set(named) == {kind.code for kind in kinds()}


def test_the_defaults_in_the_readme_are_the_programs() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    for name, default in rows.items():
        setting = name.lower()
        assert getattr(Settings.model_validate({setting: default}), setting) == Settings.model_fields[setting].default
    assert {"DATABASE_URL", "RABBITMQ_URL", "STORAGE_PATH", "MAX_FILE_SIZE", "LOG_LEVEL", "ENABLED_FORMATS"} <= set(
        rows
    )


def test_every_decision_is_listed() -> None:
    pages = {page.name for page in (ROOT / "docs/decisions").glob("0*.md")}
    assert set(re.findall(r"\]\((0[^)]+)\)", (ROOT / "docs/decisions/README.md").read_text())) == pages


@pytest.mark.parametrize("document", ["README.md", "docs/decisions/README.md"])
def test_links_lead_somewhere(document: str) -> None:
    page = ROOT / document
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert targets
    assert [target for target in targets if not (page.parent / target).exists()] == []
