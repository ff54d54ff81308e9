"""The settings of events: waiting for them, streaming them, and sending them to others."""

from pydantic import Field
from pydantic_settings import BaseSettings

from image_service.config import types


class EventSettings(BaseSettings):
    """The settings of events; a part of ``Settings``."""

    events_retention_hours: float = Field(
        default=24.0,
        gt=0,
        le=720,
        description="Hours for which events can be asked for again, after a lost connection or by a replay.",
    )
    max_wait: float = Field(
        default=20.0,
        ge=0,
        le=300,
        description="Longest time in seconds for which a request with Prefer: wait=… is answered later; less than what "
        "clients and balancers wait for an answer. 0: every request is answered at once.",
    )
    max_waiting: int = Field(
        default=2000,
        ge=0,
        le=100_000,
        description="Requests that wait so in one API process; further ones are answered at once.",
    )
    max_event_streams: int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="Event streams (SSE) that one API process serves; further ones are answered 429.",
    )
    events_exchange: str | None = Field(
        default=None,
        min_length=1,
        max_length=127,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Topic exchange of the broker that every event is published to, such as image.events; unset: none.",
    )
    webhook_timeout: float = Field(
        default=20.0,
        ge=1,
        le=60,
        description="Seconds in which a webhook endpoint must answer; then the attempt has failed.",
    )
    webhook_signatures: types.Signatures = Field(
        default="v1",
        description="How deliveries to endpoints registered from now on are signed: v1 (HMAC, shared secret) or v1a "
        "(Ed25519, public key; needs the extra `ed25519`).",
    )
    outbound_allow: types.Networks = Field(
        default=(),
        description="Comma-separated private networks that webhooks may be sent to, such as 10.1.2.0/24; there, "
        "http:// and all ports are allowed, too. Unset: public addresses only, by https.",
    )
