"""Webhook endpoints: the URLs of clients that events are sent to."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from image_service.domain.event import Event, EventType

MAX_WEBHOOKS: Final = 100
"""Endpoints that there can be, because each event is matched with all of them."""

MAX_URL: Final = 2048
"""Characters of an endpoint's URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One endpoint."""

    id: UUID
    url: str
    types: tuple[EventType, ...] | None
    """The types of events that it gets; None: all."""
    secret: str = field(repr=False)
    """Signs deliveries: ``whsec_…`` (v1) or ``whsk_…`` (v1a)."""
    previous_secret: str | None = field(default=None, repr=False)
    """The one before the last rotation, while it still signs, too."""
    previous_until: datetime | None = None
    """How long that is; None: there is none."""
    failing_since: datetime | None = None
    """The first failure since the last delivery that succeeded; None: the last one succeeded."""
    disabled_at: datetime | None = None
    """None: it is enabled."""
    disabled_reason: str | None = None
    """Why, for people."""
    created_at: datetime
    updated_at: datetime

    @property
    def enabled(self) -> bool:
        """Whether it gets events."""
        return self.disabled_at is None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that sign deliveries, the newest first."""
        return (self.secret,) if self.previous_secret is None else (self.secret, self.previous_secret)

    def wants(self, event: Event) -> bool:
        """Whether an event is to be sent to it.

        It is if it happened since the endpoint exists, is of one of its types, and is not for another endpoint only. A
        test is for one endpoint, whatever its types.
        """
        if not self.enabled or event.happened_at < self.created_at or event.webhook_id not in {None, self.id}:
            return False
        if event.type is EventType.WEBHOOK_TEST:
            return event.webhook_id == self.id
        return self.types is None or event.type in self.types


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChange:
    """What is to be changed of an endpoint."""

    url: str | None = None
    """Where it is from now on; None: where it was."""
    types: Collection[EventType] | None = None
    """The types of events that it gets from now on; None: those that it got."""
    all_types: bool = False
    """Whether it gets all types from now on."""
    enabled: bool | None = None
    """Whether it gets events from now on; None: if it did."""
