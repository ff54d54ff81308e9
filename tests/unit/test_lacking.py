"""Which outputs an image lacks, and which files are of no use beside the others."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from image_service.domain.image import Image, ImageFormat, ImageHeader, Thumbnail
from image_service.domain.lacking import lacking, superfluous
from image_service.domain.recipe import OutputFormat, Preset, Recipe
from image_service.domain.status import Status

JPEG, WEBP = OutputFormat.JPEG, OutputFormat.WEBP
HERO = Preset(name="hero", width=800, formats=(JPEG, WEBP), dpr=(1, 2))
RECIPE = Recipe(presets=(HERO, Preset(name="small", width=100, formats=(JPEG,))))
NAMES = tuple(each.name for each in RECIPE.outputs)


@dataclass(frozen=True)
class Made:
    size_bytes: int
    width: int = 800
    height: int = 600
    content_type: str = "image/jpeg"


def image(*names: str, recipe: Recipe = RECIPE, left_out: tuple[str, ...] = ()) -> Image:
    """An image that has these outputs of a recipe, and lacks others on purpose."""
    now = datetime.now(UTC)
    fingerprints = {each.name: each.fingerprint for each in recipe.outputs}
    fields: dict[str, Any] = {"content_type": "image/jpeg", "width": 1, "height": 1, "size_bytes": 1, "sha256": "ab"}
    return Image(
        id=UUID(int=1),
        status=Status.DONE,
        header=ImageHeader(format=ImageFormat.PNG, width=1, height=1),
        size_bytes=1,
        sha256="ab",
        created_at=now,
        updated_at=now,
        finished_at=now,
        error=None,
        left_out={name: fingerprints[name] for name in left_out},
        thumbnails=tuple(Thumbnail(output=name, key=name, fingerprint=fingerprints[name], **fields) for name in names),
    )


def names_lacking(recipe: Recipe, its: Image) -> list[str]:
    return [each.name for each in lacking(recipe, its)]


def test_outputs_that_are_there_or_left_out_are_not_lacking() -> None:
    assert NAMES == ("hero", "hero.webp", "hero@2x", "hero@2x.webp", "small")
    assert names_lacking(RECIPE, image(*NAMES)) == []
    assert names_lacking(RECIPE, image("hero", "small", left_out=("hero.webp", "hero@2x", "hero@2x.webp"))) == []
    assert names_lacking(RECIPE, image("small", left_out=("hero@2x",))) == ["hero", "hero.webp", "hero@2x.webp"]


def test_output_left_out_under_another_version_of_the_recipe_is_lacking() -> None:
    changed = Recipe(presets=(replace(HERO, quality=((WEBP, 50),)), RECIPE.presets[1]))
    assert names_lacking(changed, image("hero", "hero@2x", "small", left_out=("hero.webp", "hero@2x.webp"))) == [
        "hero.webp",
        "hero@2x.webp",
    ]


def test_what_was_left_out_beside_a_default_output_is_judged_again_with_it() -> None:
    changed = Recipe(presets=(replace(HERO, quality=((JPEG, 50),)), RECIPE.presets[1]))
    its = image("hero", "hero@2x", "hero@2x.webp", "small", left_out=("hero.webp",))
    assert names_lacking(changed, its) == ["hero", "hero.webp", "hero@2x"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"hero": Made(10), "hero.webp": Made(9, content_type="image/webp")}, set()),
        ({"hero": Made(10), "hero.webp": Made(10, content_type="image/webp")}, {"hero.webp"}),
        ({"hero": Made(10), "hero.webp": Made(9)}, {"hero.webp"}),
        ({"hero.webp": Made(9, content_type="image/webp")}, set()),
        ({"hero": Made(10), "hero@2x": Made(20, width=1600)}, set()),
        ({"hero": Made(10), "hero@2x": Made(10)}, {"hero@2x"}),
        ({"hero": Made(10), "hero@2x.webp": Made(9, content_type="image/webp")}, {"hero@2x.webp"}),
        ({"hero": Made(10), "small": Made(10)}, set()),
    ],
)
def test_files_of_no_use_are_found(files: dict[str, Made], found: set[str]) -> None:
    assert superfluous(RECIPE.outputs, files) == found
