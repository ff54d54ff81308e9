"""Storage keys: they are parsed exactly, and nothing else is."""

import re
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.domain.keys import (
    ORIGINALS,
    THUMBNAILS,
    ThumbnailKey,
    original_key,
    parse_original_key,
    parse_thumbnail_key,
    thumbnail_key,
)
from image_service.domain.recipe import DEFAULT_RECIPE

ID = UUID("01900000-0000-7000-8000-0000000000ab")
ORIGINAL = "originals/ab/01900000-0000-7000-8000-0000000000ab"
THUMBNAIL = "thumbnails/ab/01900000-0000-7000-8000-0000000000ab.3.300x300"

ATTEMPTS = st.integers(min_value=0, max_value=2**31)
PRESETS = st.from_regex(r"[a-z0-9_-]{1,40}", fullmatch=True)


def test_the_keys_are_exactly_these() -> None:
    assert original_key(ID) == ORIGINAL
    assert thumbnail_key(ID, 3, "300x300") == THUMBNAIL


@given(image_id=st.uuids())
def test_the_key_of_an_original_is_parsed(image_id: UUID) -> None:
    assert parse_original_key(original_key(image_id)) == image_id


@given(image_id=st.uuids(), attempt=ATTEMPTS, preset=PRESETS)
def test_the_key_of_a_thumbnail_is_parsed(image_id: UUID, attempt: int, preset: str) -> None:
    assert parse_thumbnail_key(thumbnail_key(image_id, attempt, preset)) == ThumbnailKey(image_id, attempt)


@pytest.mark.parametrize("preset", [preset.name for preset in DEFAULT_RECIPE.presets])
def test_the_key_of_every_default_preset_is_parsed(preset: str) -> None:
    assert parse_thumbnail_key(thumbnail_key(ID, 1, preset)) == ThumbnailKey(ID, 1)


@given(
    one=st.tuples(st.uuids(), ATTEMPTS, PRESETS),
    other=st.tuples(st.uuids(), ATTEMPTS, PRESETS),
)
def test_different_thumbnails_have_different_keys(one: tuple[UUID, int, str], other: tuple[UUID, int, str]) -> None:
    assert (thumbnail_key(*one) == thumbnail_key(*other)) == (one == other)


@given(image_id=st.uuids(), attempt=ATTEMPTS, preset=PRESETS)
def test_a_key_has_three_lower_case_parts(image_id: UUID, attempt: int, preset: str) -> None:
    for prefix, key in ((ORIGINALS, original_key(image_id)), (THUMBNAILS, thumbnail_key(image_id, attempt, preset))):
        folder, shard, name = key.split("/")
        assert f"{folder}/" == prefix
        assert re.fullmatch(r"[0-9a-f]{2}", shard)
        assert re.fullmatch(r"[0-9a-f][a-z0-9._-]{1,200}", name)


@pytest.mark.parametrize("parse", [parse_original_key, parse_thumbnail_key])
@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "originals/",
        "originals/ab/",
        "thumbnails/ab/.3.300x300",
        "originals/ab/README",
        "thumbnails/ab/README.3.300x300",
        f"/{ORIGINAL}",
        f"../{ORIGINAL}",
        f"{ORIGINAL}/",
        f"{ORIGINAL}\n",
        f"{ORIGINAL}.bak",
        ORIGINAL.replace("/ab/", "/ba/"),
        ORIGINAL.replace("/ab/", "/"),
        ORIGINAL.replace("originals", "originale"),
        ORIGINAL.upper(),
        "originals/ab/019000000000700080000000000000ab",
        "originals/ab/{01900000-0000-7000-8000-0000000000ab}",
        f"/{THUMBNAIL}",
        f"{THUMBNAIL}/",
        f"{THUMBNAIL}\n",
        f"{THUMBNAIL}.tmp",
        f"{THUMBNAIL}~",
        THUMBNAIL.replace("/ab/", "/ba/"),
        THUMBNAIL.replace("/ab/", "/"),
        THUMBNAIL.replace("thumbnails", "thumbs"),
        THUMBNAIL.upper(),
        THUMBNAIL.replace(".3.", ".03."),
        THUMBNAIL.replace(".3.", ".-3."),
        THUMBNAIL.replace(".3.", ".."),
        THUMBNAIL.replace(".3.", ".three."),
        THUMBNAIL.replace(".3.", ".\N{ARABIC-INDIC DIGIT THREE}."),
        THUMBNAIL.replace(".3.", f".{'9' * 5000}."),
        THUMBNAIL.replace(".300x300", ""),
        THUMBNAIL.replace("300x300", ""),
        THUMBNAIL.replace("01900000-0000-7000-", "01900000-0-00070-00"),
    ],
)
def test_other_names_are_not_parsed(parse: Callable[[str], object], key: str) -> None:
    assert parse(key) is None


def test_the_two_kinds_of_keys_are_distinct() -> None:
    assert parse_original_key(THUMBNAIL) is None
    assert parse_thumbnail_key(ORIGINAL) is None


@given(key=st.text(max_size=80))
def test_arbitrary_text_is_not_parsed(key: str) -> None:
    assert parse_original_key(key) is None
    assert parse_thumbnail_key(key) is None
