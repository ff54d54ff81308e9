"""What the documents promise about codes and settings is what the program does."""

import re
from pathlib import Path

import pytest

from image_service import errors
from image_service.api.problems import STATUS
from image_service.config import Settings, load_recipes, recipe_rules, recipes_file
from image_service.config.recipe_fields import MAX_SIDE, PRESET_FIELDS
from image_service.domain import geometry

ROOT = Path(__file__).parents[2]
RECIPES = (ROOT / "docs/recipes.md").read_text()


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


def test_the_fields_of_recipes_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| (.+?) \| (?:`(.+?)`|) \| ", RECIPES, re.MULTILINE)
    assert rows == [(name, field.allowed, field.default) for name, field in PRESET_FIELDS.items()]


def test_the_bounds_of_recipes_are_documented_as_they_are() -> None:
    (bounds,) = re.findall(r"^Bounds: (.*?)\n\n", RECIPES, re.MULTILINE | re.DOTALL)
    megabytes, *numbers = (int(number) for number in re.findall(r"\d+", bounds.replace(" million", "000000")))
    assert megabytes * 1_000_000 == recipes_file.MAX_BYTES
    assert numbers == [
        recipes_file.MAX_RECIPES,
        recipes_file.MAX_PRESETS,
        recipe_rules.MAX_OUTPUTS,
        MAX_SIDE,
        geometry.MAX_OUTPUT_PIXELS,
        recipe_rules.MAX_PIXELS_OF_ALL,
        geometry.MAX_OUTPUT_PIXELS,
    ]


@pytest.mark.parametrize("document", ["README.md", "docs/recipes.md"])
def test_recipes_in_documents_are_valid_and_those_of_the_example(document: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^( *)```toml\n(.*?)^ *```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    example = load_recipes(ROOT / "deploy/recipes.toml")
    shown = []
    for indent, block in blocks:
        file = tmp_path / "recipes.toml"
        file.write_text(block.replace(f"\n{indent}", "\n"))
        (name,) = set(load_recipes(file).names) - {"default"}
        shown.append(load_recipes(file).find(name))
    first, *others = shown
    assert first is not None
    assert first.name == "avatar"
    assert others == (
        [] if document == "README.md" else [example.find(n) for n in ("avatar", "product", "hero", "sticker")]
    )


@pytest.mark.parametrize("document", ["README.md", "docs/decisions/README.md", "docs/recipes.md"])
def test_links_lead_somewhere(document: str) -> None:
    page = ROOT / document
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert targets
    assert [target for target in targets if not (page.parent / target).exists()] == []
