"""What a client may say about an upload, beside the file: its recipe, the webhook endpoint of its events, metadata."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from image_service.database import Database
from image_service.domain.event import MAX_METADATA
from image_service.domain.recipe import Recipe, Recipes
from image_service.domain.webhook import Webhook
from image_service.errors import InvalidMetadata, MetadataTooLarge, UnknownWebhook
from image_service.services.outage_retry import retry_on_outage
from image_service.services.recipes import recipe_named


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOptions:
    """The options of an upload, as the client gave them. None: it did not."""

    recipe: str | None = None
    """The name of the recipe for its thumbnails."""
    webhook: str | None = None
    """The id of the only endpoint that gets its events."""
    metadata: bytes | None = None
    """What its events give back."""


OptionsChoice: TypeAlias = Callable[[], UploadOptions]
"""Gives the options. Called when the first bytes of the file have arrived: a form has the options before the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedOptions:
    """Options that are valid."""

    recipe: Recipe
    webhook_id: UUID | None
    metadata: str | None


def checked(options: UploadOptions, recipes: Recipes) -> CheckedOptions:
    """Check options, without looking for the endpoint.

    Raises:
        UnknownRecipe: there is no such recipe.
        UnknownWebhook: that is no id.
        MetadataTooLarge: the metadata has more than ``MAX_METADATA`` bytes.
        InvalidMetadata: it is no text that the database can keep.
    """
    return CheckedOptions(
        recipe=recipe_named(recipes, options.recipe),
        webhook_id=_id(options.webhook),
        metadata=_text(options.metadata),
    )


async def registered(options: UploadOptions, recipes: Recipes, database: Database, *, budget: float) -> CheckedOptions:
    """Check options, and that the endpoint exists; it may be disabled. Also raises what ``checked`` does.

    Args:
        options: The options.
        recipes: All recipes.
        database: Where endpoints are recorded; asked only if the options name one.
        budget: Seconds for which that is retried on outages.

    Raises:
        UnknownWebhook: there is no such endpoint.
        DatabaseUnavailable: that is not known.
    """
    chosen = checked(options, recipes)
    webhook_id = chosen.webhook_id
    if webhook_id is not None:

        async def found() -> Webhook | None:
            async with database.statement() as repositories:
                return await repositories.webhooks.get(webhook_id)

        if await retry_on_outage(found, budget=budget) is None:
            raise UnknownWebhook
    return chosen


def _id(webhook: str | None) -> UUID | None:
    if webhook is None:
        return None
    try:
        return UUID(webhook)
    except ValueError:
        raise UnknownWebhook from None


def _text(metadata: bytes | None) -> str | None:
    if metadata is None:
        return None
    if len(metadata) > MAX_METADATA:
        raise MetadataTooLarge
    if b"\0" in metadata:  # PostgreSQL keeps none in a text
        raise InvalidMetadata
    try:
        return metadata.decode()
    except UnicodeDecodeError:
        raise InvalidMetadata from None
