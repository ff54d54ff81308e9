"""The commands about recipes, and rendering with one."""

import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from harness.images import encoded, noise
from image_service.cli import app
from image_service.config import load_recipes

EXAMPLE = Path(__file__).parents[2] / "deploy/recipes.toml"
SMALL = """\
[recipes.small]
negotiate = true
[[recipes.small.presets]]
name = "icon"
width = 20
formats = ["jpeg", "webp", "png"]
quality = { webp = 10 }
dpr = [1, 2]

[[recipes.small.presets]]
name = "line"
height = 10
formats = ["auto"]
quality = { jpeg = 80, webp = 70 }
optional = true
linear = true

[[recipes.small.presets]]
name = "moving"
width = 30
height = 30
fit = "cover"
formats = ["webp", "gif"]
quality = 50
animation = "keep"
"""


@pytest.fixture(autouse=True)
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of recipes, which RECIPES_FILE names."""
    file = tmp_path / "recipes.toml"
    file.write_text(SMALL)
    monkeypatch.setenv("RECIPES_FILE", str(file))
    return file


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], terminal_width=120)


def test_check_shows_the_outputs_of_each_recipe(recipes: Path) -> None:
    result = run("recipes", "check", recipes)
    assert (result.exit_code, result.stderr) == (0, "")
    default, small = result.stdout.split("\n\n")[:2]
    assert default.startswith("default: 3 presets, 3 outputs, fingerprint ")
    assert small.startswith("small: 3 presets, 9 outputs, fingerprint ")
    assert small.splitlines()[0].endswith(", negotiates")
    rows = [re.split(r"  +", line.strip()) for line in small.splitlines()[1:]]
    assert [row[:5] for row in rows] == [
        ["output", "box", "fit", "format", "quality"],
        ["icon", "20 wide", "inside", "jpeg", "82"],
        ["icon.webp", "20 wide", "inside", "webp", "10"],
        ["icon.png", "20 wide", "inside", "png", "-"],
        ["icon@2x", "40 wide", "inside", "jpeg", "82"],
        ["icon@2x.webp", "40 wide", "inside", "webp", "10"],
        ["icon@2x.png", "40 wide", "inside", "png", "-"],
        ["line", "10 high", "inside", "auto", "80, webp 70"],
        ["moving", "30x30", "cover centre", "webp", "50"],
        ["moving.gif", "30x30", "cover centre", "gif", "-"],
    ]
    recipe = load_recipes(recipes).find("small")
    assert recipe is not None
    assert [row[5] for row in rows[1:]] == [output.fingerprint for output in recipe.outputs]
    assert [row[6:] for row in rows[7:]] == [["optional, linear"], ["animated"], ["animated"]]


def test_check_needs_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPES_FILE", "/nowhere")
    monkeypatch.setenv("API_PORT", "wrong")
    assert run("recipes", "check", EXAMPLE).exit_code == 0


def test_check_reports_every_problem(recipes: Path) -> None:
    recipes.write_text(SMALL.replace("20", "0").replace('"cover"', '"covers"'))
    result = run("recipes", "check", recipes)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"image-service: {recipes} is not usable:\n"
        f"{recipes}:5: width = 0: allowed is a whole number of pixels from 1 to 8192\n"
        f'{recipes}:22: fit = "covers": allowed are inside, cover, pad, outside\n'
    )


def test_list_shows_the_recipes(tmp_path: Path) -> None:
    result = run("recipes", "list")
    assert result.exit_code == 0
    assert [line.partition(",")[0] for line in result.stdout.splitlines()] == ["default: 3 presets", "small: 3 presets"]
    (tmp_path / "other.toml").write_text('[[recipes.other.presets]]\nname = "a"\nwidth = 1\n')
    result = run("recipes", "list", "--recipes-file", tmp_path / "other.toml")
    assert result.stdout.splitlines()[1].startswith("other: 1 preset, 1 output, fingerprint ")


def test_show_writes_a_file_of_recipes(recipes: Path, tmp_path: Path) -> None:
    result = run("recipes", "show", "small")
    assert result.exit_code == 0
    (tmp_path / "shown.toml").write_text(result.stdout)
    assert load_recipes(tmp_path / "shown.toml").find("small") == load_recipes(recipes).find("small")
    assert re.search(r"^#   icon@2x.webp +40 wide +inside +webp +10 +[0-9a-f]{16}$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", [("recipes", "show"), ("render", "photo.jpg", "--recipe")])
def test_an_unknown_recipe_is_reported_with_those_that_exist(command: tuple[str, ...]) -> None:
    result = run(*command, "smal")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "image-service: There is no recipe 'smal'. Did you mean small? RECIPES_FILE defines them; known are default, "
        "small.\n"
    )
    assert "Did you mean" not in run(*command, "zzz").stderr


@pytest.mark.parametrize(
    "command", [("recipes", "list"), ("api",), ("worker",), ("render", "photo.jpg"), ("backfill",)]
)
def test_what_renders_does_not_start_with_an_invalid_file(recipes: Path, command: tuple[str, ...]) -> None:
    recipes.write_text("[recipes.small]\nx = 1\n")
    result = run(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    first, second = result.stderr.splitlines()
    assert first == (
        f"image-service: RECIPES_FILE={recipes} is not usable: {recipes}:1: small.presets is missing: allowed are "
        "tables such as [[recipes.small.presets]]"
    )
    assert second == f'{recipes}:2: "x" is no field here: allowed are negotiate, presets.'


def test_a_health_check_does_not_read_the_file(recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes.write_text("[recipes")
    (tmp_path / "alive").touch()
    monkeypatch.setenv("LIVENESS_FILE", str(tmp_path / "alive"))
    assert run("healthcheck", "worker").exit_code == 0


def test_a_migration_does_not_read_the_file(recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes.unlink()
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/images.db")
    assert run("migrate").exit_code == 0


def test_render_uses_the_recipe(recipes: Path, tmp_path: Path) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    photo.write_bytes(encoded(noise(300, 200), "PNG"))
    recipes.write_text(SMALL[: SMALL.index('[[recipes.small.presets]]\nname = "line"')])
    result = run("render", photo, "--out", out, "--recipe", "small")
    assert result.exit_code == 0, result.output
    # A PNG of noise is larger than a JPEG.
    assert {path.name for path in out.iterdir()} >= {
        *("photo-icon.jpg", "photo-icon.webp", "photo-icon@2x.jpg", "photo-icon@2x.webp")
    }
    with Image.open(out / "photo-icon@2x.webp") as image:
        assert (image.format, image.width) == ("WEBP", 40)
    default = run("render", photo, "--out", tmp_path / "default")
    assert default.exit_code == 0, default.output
    assert {path.name for path in (tmp_path / "default").iterdir()} == {
        f"photo-{size}.jpg" for size in ("100x100", "300x300", "1200x1200")
    }


def test_render_takes_the_file_as_an_option(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(noise(30, 20), "PNG"))
    (tmp_path / "other.toml").write_text('[[recipes.other.presets]]\nname = "a"\nwidth = 10\nformats = ["png"]\n')
    options = ("--recipes-file", tmp_path / "other.toml", "--recipe", "other", "--out", tmp_path / "out")
    result = run("render", photo, *options)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo-a.png"]
