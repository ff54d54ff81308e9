"""Images with outputs of named recipes: several formats and pixel densities, optional ones that follow."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from sqlalchemy import update

from harness.api import Api, claimed
from harness.fakes import TRAITS
from image_service.domain.image import Result, Thumbnail
from image_service.domain.keys import thumbnail_key
from image_service.domain.outputs import parse_output_name
from image_service.domain.recipe import Fit, OutputFormat, Preset, Recipe, Recipes
from image_service.models import ImageRow

FINGERPRINT: Final = "r00000000000000f"
_MODERN: Final = (OutputFormat.JPEG, OutputFormat.WEBP, OutputFormat.AVIF, OutputFormat.JXL)

AVATAR: Final = Recipe(
    name="avatar",
    presets=(
        Preset(
            name="square",
            width=256,
            height=256,
            fit=Fit.COVER,
            formats=(OutputFormat.JPEG, OutputFormat.WEBP),
            quality=((OutputFormat.JPEG, 82), (OutputFormat.WEBP, 78)),
        ),
    ),
)
HERO: Final = Recipe(
    name="hero",
    negotiate=True,
    presets=(
        Preset(name="hero", width=800, formats=_MODERN[:3], dpr=(1, 2)),
        Preset(name="small", width=400, formats=(OutputFormat.JPEG,)),
        Preset(name="extra", width=800, formats=(OutputFormat.AUTO, OutputFormat.JXL), optional=True),
    ),
)
"""Negotiates; has pixel densities, and a preset that is optional."""
RECIPES: Final = Recipes(AVATAR, HERO)

Size = tuple[int, int, int]
"""Width, height and bytes."""

HERO_FILES: Final[Mapping[str, Size]] = {
    "small": (400, 300, 2000),
    "hero": (800, 600, 6000),
    "hero.avif": (800, 600, 3000),
    "hero.webp": (800, 600, 4000),
    "hero@2x": (1600, 1200, 20_000),
    "hero@2x.webp": (1600, 1200, 12_000),
}
"""Those of an image of which ``hero@2x.avif`` was left out, because it is no smaller than ``hero@2x``."""


def content_of(name: str, size: int) -> bytes:
    """Returns what the file of an output contains."""
    return name.encode().ljust(size, b".")


def thumbnail(name: str, size: Size, *, image_id: UUID | None = None, attempt: int = 1) -> Thumbnail:
    """Returns an output whose format its extension names; JPEG without one."""
    extension = parse_output_name(name).extension or "jpg"
    width, height, length = size
    return Thumbnail(
        output=name,
        key=thumbnail_key(image_id or UUID(int=1), attempt, name),
        content_type=f"image/{'jpeg' if extension == 'jpg' else extension}",
        width=width,
        height=height,
        size_bytes=length,
        sha256=hashlib.sha256(content_of(name, length)).hexdigest(),
    )


async def finish_with(
    api: Api,
    image_id: str,
    files: Mapping[str, Size] = HERO_FILES,
    *,
    pending: Collection[str] = (),
    left_out: Collection[str] = (),
) -> None:
    """Claims an image and makes it DONE with these outputs."""
    claim = await claimed(api, image_id)
    thumbnails = tuple(
        thumbnail(name, size, image_id=claim.image_id, attempt=claim.attempt) for name, size in files.items()
    )
    async with api.resources.storage.scratch() as scratch:
        for each in thumbnails:
            (scratch / each.output).write_bytes(content_of(each.output, each.size_bytes))
        await api.resources.storage.adopt({each.key: scratch / each.output for each in thumbnails})
    result = Result(width=4000, height=3000, thumbnails=thumbnails, traits=TRAITS, recipe=FINGERPRINT)
    async with api.database.transaction() as repositories:
        assert await repositories.claims.complete(claim, result, superseded_for=60)
        values = {"pending": [*pending] or None, "left_out": dict.fromkeys(left_out, FINGERPRINT) or None}
        await repositories.connection.execute(update(ImageRow).where(ImageRow.id == claim.image_id).values(**values))
