"""``srcset`` and ``<picture>``."""

import re
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from harness.fakes import TRAITS
from harness.outputs import AVATAR, HERO, HERO_FILES, Size
from image_service.documents.image import image_status
from image_service.documents.markup import Markup, markup_of
from image_service.documents.urls import ThumbnailUrls, Urls
from image_service.domain.image import Image
from image_service.domain.recipe import DEFAULT_RECIPE, Recipe, Recipes
from tests.unit.test_outputs import image

BASE = "https://img.example.org/images/1/thumbnails/"


class Parsed(HTMLParser):
    """The tags of a fragment, in order; anything else is an error."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ends: list[str] = []
        self.feed(fragment)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs))
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.ends.append(tag)

    def handle_data(self, data: str) -> None:
        raise AssertionError(data)


def made(files: dict[str, Size], recipe: Recipe | None, base: str = BASE) -> Markup | None:
    shown = replace(image(files), traits=TRAITS)
    return markup_of(shown, recipe, ThumbnailUrls(base).explicit)


def urls_in(srcset: str) -> list[tuple[str, str]]:
    return [(url.removeprefix(BASE).partition("?v=")[0], width) for url, width in map(str.split, srcset.split(", "))]


def test_an_image_without_thumbnails_has_no_markup() -> None:
    assert made({}, DEFAULT_RECIPE) is None
    assert made({}, None) is None


def test_srcset_lists_the_default_format_from_the_narrowest_on() -> None:
    markup = made({"300x300": (300, 225, 9), "1200x1200": (1200, 900, 99), "100x100": (100, 75, 5)}, DEFAULT_RECIPE)
    assert markup is not None
    assert urls_in(markup.srcset) == [("100x100.jpg", "100w"), ("300x300.jpg", "300w"), ("1200x1200.jpg", "1200w")]


def test_of_two_files_of_one_width_the_smaller_is_listed() -> None:
    markup = made({"100x100": (80, 60, 5), "300x300": (80, 60, 4), "1200x1200": (80, 60, 6)}, DEFAULT_RECIPE)
    assert markup is not None
    assert urls_in(markup.srcset) == [("300x300.jpg", "80w")]


def test_picture_has_a_source_for_each_format_that_has_the_widest() -> None:
    files: dict[str, Size] = {
        "square": (256, 256, 1000),
        "square.webp": (256, 256, 900),
        "square.avif": (256, 256, 700),
        "square@2x": (512, 512, 3000),
        "square@2x.webp": (512, 512, 2000),
        "square@2x.avif": (512, 512, 2500),
        "square.jxl": (256, 256, 600),
    }
    markup = made(files, AVATAR)
    assert markup is not None
    (_, picture), *sources, (tag, img) = Parsed(markup.picture).tags
    assert (picture, tag) == ({}, "img")
    assert [(name, attributes["type"]) for name, attributes in sources] == [
        ("source", "image/webp"),
        ("source", "image/avif"),
    ]
    assert urls_in(sources[0][1]["srcset"] or "") == [("square.webp", "256w"), ("square@2x.webp", "512w")]
    (shown,) = urls_in(f"{img.pop('src')} 1x")
    assert shown[0] == "square.jpg"
    assert img.pop("srcset") == markup.srcset
    sizes = "auto, (max-width: 256px) 100vw, 256px"
    assert img == {
        "sizes": sizes,
        "width": "256",
        "height": "256",
        "style": img["style"],
        "loading": "lazy",
        "decoding": "async",
        "alt": "",
    }
    assert re.fullmatch("background-color:#[0-9a-f]{6}", img["style"] or "")
    assert {attributes["sizes"] for _, attributes in sources} == {sizes}


def test_a_source_may_lack_narrow_widths_but_not_the_widest_or_more_than_half() -> None:
    def types(files: dict[str, Size]) -> list[tuple[str, str]]:
        markup = made(files, HERO)
        assert markup is not None
        return [
            (each["type"] or "", each["srcset"] or "") for tag, each in Parsed(markup.picture).tags if tag == "source"
        ]

    ((kind, srcset),) = types(dict(HERO_FILES))
    assert kind == "image/webp"
    assert urls_in(srcset) == [("hero.webp", "800w"), ("hero@2x.webp", "1600w")]
    assert not types({name: size for name, size in HERO_FILES.items() if name != "hero.webp"})


def test_formats_that_save_nothing_in_all_are_left_out() -> None:
    markup = made({"square": (256, 256, 1000), "square.webp": (256, 256, 1000)}, AVATAR)
    assert markup is not None
    assert [name for name, _ in Parsed(markup.picture).tags] == ["picture", "img"]


def test_a_picture_of_single_pixel_density_is_shown_in_its_own_size() -> None:
    markup = made(dict(HERO_FILES), HERO)
    assert markup is not None
    attributes = Parsed(markup.picture).tags[-1][1]
    assert (attributes["width"], attributes["height"]) == ("800", "600")
    assert urls_in(markup.srcset)[-1] == ("hero@2x.jpg", "1600w")


def test_a_transparent_image_and_one_without_placeholder_have_no_background() -> None:
    shown = image({"square": (256, 256, 1000)})
    transparent = replace(TRAITS, placeholder="moOBBQA6emuIiI/IV1x4D3i3kGp4iIiIdw==")
    for each in (shown, replace(shown, traits=transparent)):
        markup = markup_of(each, AVATAR, ThumbnailUrls(BASE).explicit)
        assert markup is not None
        assert "style" not in markup.picture


@given(base=st.text(max_size=60), recipe=st.sampled_from([None, HERO, DEFAULT_RECIPE]))
def test_picture_is_the_expected_elements_whatever_the_base_url(base: str, recipe: Recipe | None) -> None:
    markup = made({**HERO_FILES, "small.webp": (400, 300, 100)}, recipe, base)
    assert markup is not None
    parsed = Parsed(markup.picture)
    assert [(name, set(attributes)) for name, attributes in parsed.tags] == [
        ("picture", set()),
        ("source", {"type", "srcset", "sizes"}),
        ("img", {"src", "srcset", "sizes", "width", "height", "style", "loading", "decoding", "alt"}),
    ]
    assert parsed.ends == ["picture"]
    img = parsed.tags[-1][1]
    assert img["srcset"] == markup.srcset
    assert (img["src"] or "").startswith(base)


@given(base=st.text(max_size=60))
def test_the_document_of_an_image_is_made_whatever_the_base_url(base: str) -> None:
    shown: Image = replace(image(dict(HERO_FILES)), recipe_name="unknown", pending=("x.webp",))
    document = image_status(shown, Urls("https://h/" + base.replace("[", "").replace("]", "")), Recipes())
    assert Parsed(document.picture or "").ends == ["picture"]
