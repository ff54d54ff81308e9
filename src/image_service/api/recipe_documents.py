"""The JSON documents of recipes and limits."""

from pydantic import BaseModel, ConfigDict, Field

from image_service.api.form_file import FIELD, RECIPE
from image_service.api.form_parser import MAX_PARTS
from image_service.api.idempotency import MAX_KEY
from image_service.config import Settings
from image_service.domain.event import MAX_METADATA
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import Animation, Effort, Fit, Gravity, OutputFormat, Preset, Recipe, Recipes
from image_service.services.recipes import MAX_RECIPE_NAME


class PresetDocument(BaseModel):
    """A size and shape, and the files that are made of it."""

    name: str
    width: int | None = Field(description="Of the box in pixels; null: as wide as the height makes it.")
    height: int | None
    fit: Fit = Field(
        description="inside: the whole image within the box; outside: the whole image around it; cover: the box, with "
        "what sticks out cut off; pad: the box, with the background around the image."
    )
    gravity: Gravity = Field(description="For cover: which part of the image is kept.")
    background: str = Field(description="As #rrggbb.")
    enlarge: bool = Field(description="Whether an image smaller than the box is enlarged.")
    formats: tuple[OutputFormat, ...] = Field(
        description="The first is the default. auto: JPEG or WebP, depending on the image."
    )
    quality: dict[OutputFormat, int] = Field(description="Of the encoder, from 1 to 100, by format.")
    effort: Effort
    sharpen: bool
    linear: bool
    animation: Animation
    dpr: tuple[int, ...] = Field(description="Pixel densities: for each, the box is so many times as large.")
    optional: bool = Field(description="Whether the image is DONE without it; it follows.")
    outputs: tuple[str, ...] = Field(
        description="The names of its files, as in URLs. An image lacks those that are no smaller than the default."
    )


class RecipeDocument(BaseModel):
    """A set of presets."""

    name: str
    negotiate: bool = Field(
        description="Whether a thumbnail's URL without an extension serves the best format that `Accept` names."
    )
    fingerprint: str = Field(description="Changes whenever a thumbnail would.")
    presets: tuple[PresetDocument, ...]


class RecipeList(BaseModel):
    """The recipes that an upload can name, sorted by name."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "recipes": [
                        {
                            "name": "avatar",
                            "negotiate": False,
                            "fingerprint": "r3f1c0de9a8b7c6d",
                            "presets": [
                                {
                                    "name": "square",
                                    "width": 256,
                                    "height": 256,
                                    "fit": "cover",
                                    "gravity": "attention",
                                    "background": "#ffffff",
                                    "enlarge": False,
                                    "formats": ["jpeg", "webp"],
                                    "quality": {"jpeg": 82, "webp": 78},
                                    "effort": "fast",
                                    "sharpen": False,
                                    "linear": False,
                                    "animation": "first",
                                    "dpr": [1],
                                    "optional": False,
                                    "outputs": ["square", "square.webp"],
                                }
                            ],
                        }
                    ]
                }
            ]
        },
    )

    recipes: tuple[RecipeDocument, ...]


class Limits(BaseModel):
    """What a client may send."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "max_file_size": 10_485_760,
                    "max_pixels": 50_000_000,
                    "content_types": ["image/avif", "image/gif", "image/jpeg", "image/png", "image/webp"],
                    "recipes": ["avatar", "default"],
                    "file_field": FIELD,
                    "recipe_field": RECIPE,
                    "max_fields": MAX_PARTS,
                    "max_recipe_name": MAX_RECIPE_NAME,
                    "max_metadata": MAX_METADATA,
                    "max_idempotency_key": MAX_KEY,
                }
            ]
        },
    )

    max_file_size: int = Field(description="Of a file in bytes.")
    max_pixels: int = Field(description="Width times height. Some formats have lower limits, for their memory.")
    content_types: tuple[str, ...] = Field(description="Formats that are accepted, for example for `<input accept>`.")
    recipes: tuple[str, ...] = Field(description="Names; `GET /recipes` describes them.")
    file_field: str = Field(description="The form field for the file.")
    recipe_field: str = Field(description="The form field, before the file, for the recipe.")
    max_fields: int = Field(description="Fields of a form.")
    max_recipe_name: int = Field(description="Bytes of the field for the recipe.")
    max_metadata: int = Field(description="Bytes of the field `metadata`, in UTF-8.")
    max_idempotency_key: int = Field(description="Characters of an Idempotency-Key.")


def recipe_list(recipes: Recipes) -> RecipeList:
    """Returns the document of all recipes."""
    return RecipeList(recipes=tuple(_recipe(recipe) for name in recipes.names if (recipe := recipes.find(name))))


def limits_of(settings: Settings, recipes: Recipes) -> Limits:
    """Returns the document of the limits that these settings set."""
    return Limits(
        max_file_size=settings.max_file_size,
        max_pixels=settings.max_pixels,
        content_types=tuple(sorted(ImageFormat(each).content_type for each in settings.enabled_formats)),
        recipes=recipes.names,
        file_field=FIELD,
        recipe_field=RECIPE,
        max_fields=MAX_PARTS,
        max_recipe_name=MAX_RECIPE_NAME,
        max_metadata=MAX_METADATA,
        max_idempotency_key=MAX_KEY,
    )


def _recipe(recipe: Recipe) -> RecipeDocument:
    return RecipeDocument(
        name=recipe.name,
        negotiate=recipe.negotiate,
        fingerprint=recipe.fingerprint,
        presets=tuple(_preset(preset, recipe) for preset in recipe.presets),
    )


def _preset(preset: Preset, recipe: Recipe) -> PresetDocument:
    outputs = [output for output in recipe.outputs if output.preset == preset.name]
    return PresetDocument(
        name=preset.name,
        width=preset.width,
        height=preset.height,
        fit=preset.fit,
        gravity=preset.gravity,
        background=preset.background,
        enlarge=preset.enlarge,
        formats=preset.formats,
        quality={output.format: output.quality for output in outputs},
        effort=preset.effort,
        sharpen=preset.sharpen,
        linear=preset.linear,
        animation=preset.animation,
        dpr=preset.dpr,
        optional=preset.optional,
        outputs=tuple(output.name for output in outputs),
    )
