"""Files of recipes: what is read, and that each problem is reported with its line and what is allowed."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.config import InvalidRecipesError, as_toml, load_recipes
from image_service.config.recipe_fields import COLOURS, PRESET_FIELDS, has_quality
from image_service.config.recipe_rules import MAX_OUTPUTS
from image_service.config.recipes_file import MAX_BYTES
from image_service.domain.recipe import (
    DEFAULT_RECIPE,
    Animation,
    Effort,
    Fit,
    Gravity,
    OutputFormat,
    Preset,
    Recipe,
    Recipes,
)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy/recipes.toml"
ISSUE = """\
[recipes.avatar]
negotiate = false
[[recipes.avatar.presets]]
name = "square"
width = 256
height = 256
fit = "cover"
gravity = "attention"
formats = ["jpeg", "webp"]
quality = { jpeg = 82, webp = 78 }
"""


class RecipeFile:
    """A file of recipes in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "recipes.toml"

    def load(self, content: str | bytes) -> Recipes:
        self.path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_recipes(self.path)

    def preset(self, lines: str) -> Preset:
        """The preset with these lines, at line 3 and below, besides its name in line 2."""
        recipe = self.load(f'[[recipes.one.presets]]\nname = "a"\n{lines}\n').find("one")
        assert recipe is not None
        return recipe.presets[0]

    def problems(self, content: str | bytes) -> list[str]:
        """Every problem as ``LINE: what``."""
        with pytest.raises(InvalidRecipesError) as refused:
            self.load(content)
        lines = str(refused.value).splitlines()
        assert all(line.startswith(f"{self.path}:") for line in lines)
        return [line.removeprefix(f"{self.path}:").removeprefix(" ") for line in lines]

    def problem(self, lines: str) -> str:
        """The only problem of the preset with these lines, at line 3 and below."""
        (problem,) = self.problems(f'[[recipes.one.presets]]\nname = "a"\n{lines}\n')
        return problem


@pytest.fixture
def file(tmp_path: Path) -> RecipeFile:
    return RecipeFile(tmp_path)


def test_the_recipe_of_the_documentation_is_read(file: RecipeFile) -> None:
    recipes = file.load(ISSUE)
    assert recipes.names == ("avatar", "default")
    assert recipes.default is DEFAULT_RECIPE
    assert recipes.find("avatar") == Recipe(
        name="avatar",
        presets=(
            Preset(
                name="square",
                width=256,
                height=256,
                fit=Fit.COVER,
                gravity=Gravity.ATTENTION,
                formats=(OutputFormat.JPEG, OutputFormat.WEBP),
                quality=((OutputFormat.JPEG, 82), (OutputFormat.WEBP, 78)),
            ),
        ),
    )


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "[recipes]\n"])
def test_without_recipes_there_is_the_default_one(file: RecipeFile, content: str) -> None:
    assert file.load(content).names == ("default",)


def test_the_default_recipe_may_be_redefined(file: RecipeFile) -> None:
    recipes = file.load('[[recipes.default.presets]]\nname = "small"\nwidth = 10\n')
    assert recipes.names == ("default",)
    assert [each.name for each in recipes.default.outputs] == ["small"]


def test_a_file_may_begin_with_a_byte_order_mark_and_have_windows_line_ends(file: RecipeFile) -> None:
    content = b"\xef\xbb\xbf" + ISSUE.replace("\n", "\r\n").encode()
    assert file.load(content).find("avatar") == file.load(ISSUE).find("avatar")
    assert file.problems(content.replace(b'"cover"', b'"covers"'))[0].startswith('7: fit = "covers": ')


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("width = 8192", {"width": 8192}),
        ("width = 8000\nheight = 2000", {"width": 8000, "height": 2000}),
        ("height = 1", {"height": 1}),
        ('width = 1\nbackground = "#AbC"', {"width": 1, "background": "#aabbcc"}),
        ('width = 1\nbackground = "#A0b1C2"', {"width": 1, "background": "#a0b1c2"}),
        ('width = 1\nbackground = "Black"', {"width": 1, "background": "#000000"}),
        ("width = 1\ndpr = [3, 1, 2]", {"width": 1, "dpr": (1, 2, 3)}),
        ("width = 1\nquality = 100", {"width": 1, "quality": 100}),
        (
            "width = 1\nquality = { webp = 1, jpeg = 2 }",
            {"width": 1, "quality": ((OutputFormat.JPEG, 2), (OutputFormat.WEBP, 1))},
        ),
        (
            'width = 1\nanimation = "keep"\nformats = ["auto", "gif", "webp"]',
            {
                "width": 1,
                "animation": Animation.KEEP,
                "formats": (OutputFormat.AUTO, OutputFormat.GIF, OutputFormat.WEBP),
            },
        ),
        (
            'width = 1\nenlarge = true\nsharpen = true\nlinear = true\neffort = "small"',
            {"width": 1, "enlarge": True, "sharpen": True, "linear": True, "effort": Effort.SMALL},
        ),
    ],
)
def test_fields_are_read(file: RecipeFile, lines: str, expected: dict[str, Any]) -> None:
    assert file.preset(lines) == Preset(name="a", **expected)


GRAVITIES = "centre, north, north-east, east, south-east, south, south-west, west, north-west, attention"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", "1: a has neither width nor height: at least one is needed"),
        ("width = 0", "3: width = 0: allowed is a whole number of pixels from 1 to 8192"),
        ("width = 8193", "3: width = 8193: allowed is a whole number of pixels from 1 to 8192"),
        ("width = true", "3: width = true: allowed is a whole number of pixels from 1 to 8192"),
        ("height = 1.0", "3: height = 1.0: allowed is a whole number of pixels from 1 to 8192"),
        ('height = "1"', '3: height = "1": allowed is a whole number of pixels from 1 to 8192'),
        (
            "width = 10\ndpr = [1, 2]\nheight = 4097",
            "5: height = 4097 makes 8194 pixels at dpr 2: allowed are 8192",
        ),
        (
            "width = 4000\nheight = 4001",
            "1: a has 16,004,000 pixels at dpr 1: allowed are 16,000,000",
        ),
        ("width = 2001\nheight = 2000\ndpr = [1, 2]", "1: a has 16,008,000 pixels at dpr 2: allowed are 16,000,000"),
        ('width = 1\nfit = "fill"', '4: fit = "fill": allowed are inside, cover, pad, outside'),
        ("width = 1\nfit = 1", "4: fit = 1: allowed are inside, cover, pad, outside"),
        (
            'width = 1\nfit = "cover"',
            '4: fit = "cover" needs width and height: height is missing; allowed is "inside"',
        ),
        ('height = 1\nfit = "pad"', '4: fit = "pad" needs width and height: width is missing; allowed is "inside"'),
        (
            'width = 1\nheight = 1\nfit = "cover"\n\ngravity = "center"',
            f'7: gravity = "center": allowed are {GRAVITIES}',
        ),
        (
            'width = 1\ngravity = "north"',
            '4: gravity has no effect with fit = "inside": it is allowed with "cover" only',
        ),
        (
            'width = 1\nbackground = "transparent"',
            f'4: background = "transparent": allowed are #rrggbb, #rgb, {", ".join(COLOURS)}',
        ),
        (
            'width = 1\nbackground = "#12345"',
            f'4: background = "#12345": allowed are #rrggbb, #rgb, {", ".join(COLOURS)}',
        ),
        ("width = 1\nbackground = 0", f"4: background = 0: allowed are #rrggbb, #rgb, {', '.join(COLOURS)}"),
        ('width = 1\nenlarge = "yes"', '4: enlarge = "yes": allowed is true or false'),
        ("width = 1\nlinear = 1", "4: linear = 1: allowed is true or false"),
        (
            "width = 1\nformats = []",
            "4: formats = []: allowed is a list of auto, jpeg, png, webp, avif, jxl, gif, each once",
        ),
        (
            'width = 1\nformats = "jpeg"',
            '4: formats = "jpeg": allowed is a list of auto, jpeg, png, webp, avif, jxl, gif, each once',
        ),
        (
            'width = 1\nformats = ["jpeg",\n  "jpg"]',
            '5: formats = ["jpeg", "jpg"]: allowed is a list of auto, jpeg, png, webp, avif, jxl, gif, each once',
        ),
        (
            "width = 1\nformats = [\n  1,\n]",
            "5: formats = [1]: allowed is a list of auto, jpeg, png, webp, avif, jxl, gif, each once",
        ),
        (
            'width = 1\nformats = [\n"png",\n"png"]',
            '6: formats = ["png", "png"]: png is there twice; each is allowed once',
        ),
        (
            'width = 1\nformats = ["png",\n"auto"]',
            '5: formats = ["png", "auto"]: auto is allowed as the first only',
        ),
        (
            "width = 1\nquality = 0",
            f"4: quality = 0: allowed is {PRESET_FIELDS['quality'].allowed}",
        ),
        (
            "width = 1\nquality = { png = 1 }",
            '4: quality = {"png": 1}: allowed are jpeg, webp, avif, jxl',
        ),
        (
            "width = 1\n[recipes.one.presets.quality]\njpeg = 1\nwebp = 101",
            '6: quality = {"jpeg": 1, "webp": 101}: allowed is a whole number from 1 to 100',
        ),
        (
            "width = 1\nquality = { jpeg = 1, avif = 2 }",
            "4: quality is given for avif, which this preset does not make: allowed are jpeg, webp",
        ),
        (
            'width = 1\nformats = ["png"]\nquality = { jpeg = 1 }',
            "5: quality is given for jpeg, which this preset does not make: its formats have no quality",
        ),
        ('width = 1\neffort = "slow"', '4: effort = "slow": allowed are fast, small'),
        (
            'width = 1\nformats = ["gif"]',
            '4: gif is for animations: it is allowed with animation = "keep" only',
        ),
        (
            'width = 1\nanimation = "keep"\nformats = ["webp",\n\n"avif"]',
            '7: avif has no animation: with animation = "keep" allowed are auto, webp, gif',
        ),
        ("width = 1\ndpr = 2", "4: dpr = 2: allowed is a list of whole numbers from 1 to 4, each once, with 1"),
        ("width = 1\ndpr = []", "4: dpr = []: 1 is missing, which is always needed"),
        ("width = 1\ndpr = [2]", "4: dpr = [2]: 1 is missing, which is always needed"),
        (
            "width = 1\ndpr = [1,\n5]",
            "5: dpr = [1, 5]: allowed is a list of whole numbers from 1 to 4, each once, with 1",
        ),
        ("width = 1\ndpr = [1, 1]", "4: dpr = [1, 1]: 1 is there twice; each is allowed once"),
        ("width = 1\noptional = true", "1: all presets of one are optional: at least one must not be"),
        (
            "width = 1\nhight = 1",
            f'4: "hight" is no field here, but height is: allowed are {", ".join(PRESET_FIELDS)}',
        ),
        ("width = 1\nzzz = 1", f'4: "zzz" is no field here: allowed are {", ".join(PRESET_FIELDS)}'),
    ],
)
def test_what_is_wrong_in_a_preset_is_reported_with_its_line_and_what_is_allowed(
    file: RecipeFile, lines: str, problem: str
) -> None:
    assert file.problem(lines) == problem


ONE = '[[recipes.one.presets]]\nname = "a"\nwidth = 1\n'
NAMES = "1 to 32 letters, digits, hyphens and underscores, the first a letter or digit"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("recipe = 1", '1: "recipe" is no field here, but recipes is: allowed are recipes'),
        ("\nrecipes = 1", "2: allowed are tables such as [recipes.avatar]"),
        ("[recipes]\none = 1", "2: one is no recipe: allowed are tables such as [recipes.one]"),
        ("[recipes.one]", "1: one.presets is missing: allowed are tables such as [[recipes.one.presets]]"),
        (
            "[recipes.one]\npresets = [1]",
            "2: one.presets is missing: allowed are tables such as [[recipes.one.presets]]",
        ),
        ("[recipes.one]\npresets = []", "2: has 0 presets; allowed are 1 to 32"),
        (
            '[recipes."a.b"]\n[[recipes."a.b".presets]]\nname = "a"\nwidth = 1',
            f'1: "a.b" cannot be the name of a recipe: allowed are {NAMES}',
        ),
        (
            f"[recipes.one]\nnegotiates = true\n{ONE}",
            '2: "negotiates" is no field here, but negotiate is: allowed are negotiate, presets',
        ),
        (f"[recipes.one]\nnegotiate = 1\n{ONE}", "2: negotiate = 1: allowed is true or false"),
        ("[[recipes.one.presets]]\nwidth = 1", f"1: name is missing: allowed are {NAMES}"),
        ('[[recipes.one.presets]]\nname = "-"', f'2: name = "-": allowed is {NAMES}'),
        (f'[[recipes.one.presets]]\nname = "{"x" * 33}"', f'2: name = "{"x" * 33}": allowed is {NAMES}'),
        ("[[recipes.one.presets]]\nname = 100", f"2: name = 100: allowed is {NAMES}"),
        (
            ONE + ONE.replace('"a"', '"A"'),
            '5: name = "A": another preset has it; allowed is each name once',
        ),
        (ONE * 33, "1: has 33 presets; allowed are 1 to 32"),
        ("".join(f"[recipes.r{at}]\n" for at in range(101)), "1: has 101 recipes; allowed are 100"),
        (ONE.replace('"a"', '"é'.encode().decode()), "2: is no TOML, at column 10: illegal character '\\n'"),
        ("[recipes.one]\na = [", "2: is no TOML: invalid value"),
        ("[recipes.one]\n[recipes.one]", "2: is no TOML, at column 13: cannot declare ('recipes', 'one') twice"),
    ],
)
def test_what_is_wrong_elsewhere_is_reported_with_its_line(file: RecipeFile, content: str, problem: str) -> None:
    assert file.problems(content)[0] == problem


def test_all_problems_are_reported_at_once_in_the_order_of_lines(file: RecipeFile) -> None:
    content = ISSUE.replace("false", '"no"').replace("256", "-1").replace("82", "820").replace("attention", "x")
    assert [problem.partition(":")[0] for problem in file.problems(content)] == ["2", "5", "6", "8", "10"]


def test_of_many_problems_twenty_are_reported(file: RecipeFile) -> None:
    problems = file.problems("[recipes]\n" + "".join(f"r{at} = 1\n" for at in range(25)))
    assert len(problems) == 21
    assert problems[-1] == "and 5 more"


def test_outputs_and_pixels_of_a_recipe_are_bounded(file: RecipeFile) -> None:
    def presets(count: int, fields: str) -> str:
        return "".join(f'[[recipes.one.presets]]\nname = "p{at}"\n{fields}\n' for at in range(count))

    several = 'formats = ["jpeg", "webp"]\ndpr = [1, 2]\nwidth = 10'
    recipe = file.load(presets(MAX_OUTPUTS // 4, several)).find("one")
    assert recipe is not None
    assert len(recipe.outputs) == MAX_OUTPUTS
    assert file.problems(presets(MAX_OUTPUTS // 4 + 1, several)) == [
        "1: one has 68 outputs, one for each format and dpr; allowed are 64"
    ]
    assert file.load(presets(9, "width = 8000")).find("one")
    assert file.problems(presets(10, "width = 8000")) == [
        "1: the outputs of one have 160,000,000 pixels; allowed are 150,000,000"
    ]


def test_the_size_of_a_file_is_bounded(file: RecipeFile) -> None:
    assert file.load(f"{ISSUE}#{' ' * (MAX_BYTES - len(ISSUE) - 1)}").find("avatar")
    assert file.problems("#" + " " * MAX_BYTES) == ["is larger than 1,000,000 bytes, which is allowed"]


def test_a_file_that_is_no_text_is_refused(file: RecipeFile) -> None:
    assert file.problems(b"[recipes]\n# \xff\n") == ["2: is no UTF-8"]


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 10_000], ids=["brackets", "digits"])
def test_values_that_cannot_be_read_are_refused(file: RecipeFile, value: str) -> None:
    (problem,) = file.problems(f"[recipes]\na = {value}\n")
    assert problem.startswith("cannot be read: ")


def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipesError, match=r"missing: cannot be read: No such file or directory$"):
        load_recipes(tmp_path / "missing")
    with pytest.raises(InvalidRecipesError, match=r": cannot be read: Is a directory$"):
        load_recipes(tmp_path)


def test_long_values_are_shortened_in_messages(file: RecipeFile) -> None:
    problem = file.problem(f'width = 1\nfit = "{"x" * 1000}"')
    assert problem == f'4: fit = "{"x" * 58}…: allowed are inside, cover, pad, outside'


def test_jpeg_xl_needs_its_package(file: RecipeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = 'width = 1\nformats = ["jpeg",\n"jxl"]'
    assert OutputFormat.JXL in file.preset(lines).formats
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert file.problem(lines) == (
        "5: jxl needs the package imagecodecs, which is not installed: install image-processing-service[jxl], or "
        "build the container images with --build-arg EXTRA_FORMATS=jxl"
    )


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/**/recipes*.toml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_file_of_the_repository_is_valid_without_extras(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("imagecodecs", "pillow_heif"):
        monkeypatch.setitem(sys.modules, package, None)
    assert load_recipes(path).names == ("avatar", "default", "hero", "product", "sticker")
    assert load_recipes(path).default is DEFAULT_RECIPE


def test_the_example_has_jpeg_xl_to_turn_on(file: RecipeFile) -> None:
    lines = EXAMPLE.read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("#formats = "))
    lines[at - 2 : at + 1] = [lines[at].removeprefix("#")]
    hero = file.load("\n".join(lines)).find("hero")
    assert hero is not None
    assert {output.name for output in hero.outputs if output.format is OutputFormat.JXL} == {
        f"wide{density}.jxl" for density in ("", "@2x", "@3x")
    }


def presets() -> st.SearchStrategy[Preset]:
    """Presets that a file may have, of every kind."""
    still = st.lists(st.sampled_from([each for each in OutputFormat if each != "gif"]), min_size=1, unique=True)
    animated = st.lists(
        st.sampled_from([OutputFormat.AUTO, OutputFormat.WEBP, OutputFormat.GIF]), min_size=1, unique=True
    )
    side = st.integers(1, 800)

    def preset(draw: st.DrawFn) -> Preset:
        animation = draw(st.sampled_from(Animation))
        formats = draw(animated if animation is Animation.KEEP else still)
        formats.sort(key=lambda each: each is not OutputFormat.AUTO)
        made = {*formats, *([OutputFormat.JPEG, OutputFormat.WEBP] if formats[0] is OutputFormat.AUTO else [])}
        table = tuple((each, draw(st.integers(1, 100))) for each in OutputFormat if each in made and has_quality(each))
        fit = draw(st.sampled_from(Fit))
        return Preset(
            name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", fullmatch=True)),
            width=draw(side),
            height=draw(side if fit is not Fit.INSIDE else st.none() | side),
            fit=fit,
            gravity=draw(st.sampled_from(Gravity)) if fit is Fit.COVER else Gravity.CENTRE,
            background=draw(st.from_regex("#[0-9a-f]{6}", fullmatch=True)),
            enlarge=draw(st.booleans()),
            formats=tuple(formats),
            quality=draw(st.just(table) | st.integers(1, 100)),
            effort=draw(st.sampled_from(Effort)),
            sharpen=draw(st.booleans()),
            linear=draw(st.booleans()),
            animation=animation,
            dpr=(1, *draw(st.sampled_from([(), (2,), (2, 3, 4)]))),
        )

    return st.composite(preset)()


@given(preset=presets(), negotiate=st.booleans())
def test_a_recipe_that_is_written_is_read_again(
    preset: Preset,
    negotiate: bool,  # noqa: FBT001  (drawn)
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    recipe = Recipe(
        name="one", presets=(preset, replace(preset, name="other-name", optional=True)), negotiate=negotiate
    )
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(as_toml(recipe))
    assert load_recipes(path).find("one") == recipe


def test_the_built_in_recipe_can_be_written(file: RecipeFile) -> None:
    assert file.load(as_toml(DEFAULT_RECIPE)).default == DEFAULT_RECIPE
