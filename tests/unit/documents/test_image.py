"""An image's document: its outputs, also those that follow, also of a recipe that the process does not know."""

from dataclasses import replace

import pytest

from harness.outputs import HERO_FILES, RECIPES
from image_service.documents.image import ImageStatus, image_status
from image_service.documents.urls import Urls
from image_service.domain.image import Image
from image_service.domain.recipe import Recipes
from tests.unit.test_outputs import image

BASE = "https://img.example.org"


def document(shown: Image, recipes: Recipes = RECIPES) -> ImageStatus:
    return image_status(shown, Urls(BASE), recipes)


def hero(*pending: str) -> Image:
    return replace(image(dict(HERO_FILES)), recipe_name="hero", pending=pending)


def test_thumbnails_are_the_default_outputs_of_single_density() -> None:
    shown = document(hero())
    assert set(shown.thumbnails) == {"small", "hero"}
    assert shown.thumbnails["hero"].startswith(f"{BASE}/images/{shown.id}/thumbnails/hero?v=")


def test_outputs_are_all_files_with_explicit_urls() -> None:
    shown = document(hero()).model_dump(mode="json", by_alias=True)
    assert shown["recipe"] == "hero"
    listed = {each["url"].rpartition("/")[2].partition("?")[0]: each for each in shown["outputs"]}
    assert set(listed) == {"small.jpg", "hero.jpg", "hero.avif", "hero.webp", "hero@2x.jpg", "hero@2x.webp"}
    webp = listed["hero@2x.webp"]
    assert webp["url"].endswith(f"?v={webp['sha256'][:16]}")
    assert {name: value for name, value in webp.items() if name not in {"url", "sha256"}} == {
        "preset": "hero",
        "dpr": 2,
        "format": "webp",
        "content_type": "image/webp",
        "width": 1600,
        "height": 1200,
        "bytes": 12_000,
        "status": "ready",
    }


PENDING = [("extra", None), ("extra.jxl", "jxl"), ("hero@3x.avif", "avif")]


@pytest.mark.parametrize("recipes", [RECIPES, Recipes()])
def test_outputs_that_follow_are_pending(recipes: Recipes) -> None:
    shown = document(hero(*(name for name, _ in PENDING)), recipes).model_dump(mode="json", by_alias=True)
    pending = [each for each in shown["outputs"] if each["status"] == "pending"]
    assert [(each["preset"], each["dpr"], each["format"]) for each in pending] == [
        ("extra", 1, None),
        ("extra", 1, "jxl"),
        ("hero", 3, "avif"),
    ]
    unknown = ("content_type", "width", "height", "bytes", "sha256", "url")
    assert all(each[name] is None for each in pending for name in unknown)
    assert "extra" not in shown["thumbnails"]


def test_the_default_format_of_a_pending_output_is_that_of_its_recipe() -> None:
    bare = replace(image({}), recipe_name="hero", pending=("hero@2x", "small"))
    assert [each.format for each in document(bare).outputs] == ["jpeg", "jpeg"]
    assert [each.format for each in document(bare, Recipes()).outputs] == [None, None]


def test_a_file_is_served_until_its_successor_is_made() -> None:
    outputs = document(hero("hero", "hero@2x.avif")).outputs
    assert [(each.preset, each.dpr, each.format) for each in outputs if each.status == "pending"] == [
        ("hero", 2, "avif")
    ]
    assert len(outputs) == len(HERO_FILES) + 1


@pytest.mark.parametrize("name", [None, "default", "hero", "forgotten"])
def test_an_image_without_files_has_no_markup(name: str | None) -> None:
    shown = document(replace(image({}), recipe_name=name))
    assert (shown.recipe, shown.outputs, shown.srcset, shown.picture) == (name or "default", [], None, None)
