"""The settings of all processes, with their defaults."""

import os
import tempfile
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from image_service.config import types
from image_service.config.event_settings import EventSettings
from image_service.config.raw_values import cleaned
from image_service.config.recipes_file import load_recipes
from image_service.config.server_urls import EMBEDDED_QUEUE, SQLITE
from image_service.domain import limits
from image_service.domain.image import DEFAULT_FORMATS
from image_service.domain.recipe import Recipes


class Settings(EventSettings):
    """The settings. The environment variable of each has its name in upper case."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True, allow_inf_nan=False)

    database_url: types.DatabaseUrl = Field(
        default=SecretStr("postgresql+asyncpg://postgres:postgres@db:5432/images_db"),
        description="The database: postgresql://…, as hosting providers hand it out, or sqlite+aiosqlite:///…. "
        "See [tls.md](tls.md).",
    )
    rabbitmq_url: types.QueueUrl = Field(
        default=SecretStr("amqp://guest:guest@rabbit:5672/"),
        description="The broker: amqp://…, or amqps://… ([TLS](tls.md)); embedded:// keeps the queue in the process, "
        "without a broker.",
    )
    storage_path: Path = Field(
        default=Path("/app/storage"),
        description="Directory for originals and thumbnails; with object storage, for scratch files only.",
    )
    storage_url: types.StorageUrl | None = Field(
        default=None,
        description="Storage to use instead of STORAGE_PATH: s3://bucket/prefix, gs://…, az://… or file:///folder.",
    )
    storage_timeout: float = Field(
        default=4.0,
        gt=0,
        le=600,
        description="Timeout for storing an image in object storage, in seconds; the upload is refused after that.",
    )
    storage_reserve: float = Field(
        default=5.0,
        ge=0,
        le=50,
        description="Percentage of the disk of STORAGE_PATH, 5 GiB at most, that uploads leave free: below it they are "
        "answered 507, and deletions still work.",
    )
    files_delivery: Literal["proxy", "redirect"] = Field(
        default="proxy",
        description="proxy: the API sends files; redirect: it redirects clients to presigned URLs of object storage.",
    )
    max_file_size: int = Field(
        default=limits.MAX_FILE_SIZE, ge=1, le=types.TEBIBYTE, description="Largest accepted upload, in bytes."
    )
    log_level: types.LogLevel = Field(
        default="INFO", description="Least severe level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="Log format: json (JSON lines), console (readable), or auto: console on a terminal, else json.",
    )
    api_host: str = Field(default="0.0.0.0", description="Address that the API listens on.")  # noqa: S104 — a container's port is published or not by its host; standalone listens on loopback
    api_port: int = Field(
        default=8000, ge=0, le=65535, description="Port that the API listens on; 0 chooses a free one."
    )

    public_url: types.BaseUrl | None = Field(
        default=None,
        description="Base of the URLs in responses, such as https://img.example.org; unset: taken from the request.",
    )
    trusted_proxies: types.Networks = Field(
        default=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="Comma-separated addresses or networks whose X-Forwarded-* headers are trusted.",
    )
    allowed_hosts: types.Hosts = Field(
        default=None,
        description="Comma-separated host names that requests may be addressed to, besides IP addresses, localhost, "
        "this machine's name and PUBLIC_URL's; *: any. Unset: any; standalone: no others.",
    )
    allowed_origins: types.Origins = Field(
        default=None,
        description="Comma-separated origins, such as https://app.example, whose pages may use the API in a browser; "
        "*: all. Unset: none. Other pages may only show images.",
    )
    upload_idle_timeout: types.UpToAnHour = Field(
        default=30.0, description="Seconds without a byte after which an upload is aborted."
    )
    upload_min_rate: int = Field(
        default=4096,
        ge=1,
        le=types.GIBIBYTE,
        description="Least bytes per second of an upload; it is aborted when it is twice UPLOAD_IDLE_TIMEOUT behind.",
    )

    max_connections: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Connections that one API process keeps open at once; beyond, the oldest idle one is closed. "
        "Unset: 4096. Never more than half of the open files that the system permits.",
    )
    max_concurrent_uploads: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Uploads that one API process receives at once; further ones are answered 429.",
    )
    max_backlog: int = Field(
        default=200_000, ge=1, le=1_000_000_000, description="Unfinished images from which uploads are answered 503."
    )

    enabled_formats: types.Formats = Field(
        default=DEFAULT_FORMATS,
        description="Comma-separated formats to accept; tiff and bmp can be added, and with their extras heic and jxl.",
    )
    recipes_file: Path | None = Field(
        default=None,
        description="File with named recipes, for other sizes, shapes and formats of thumbnails: see "
        "[recipes.md](recipes.md). Unset: the three default sizes only.",
    )
    max_pixels: int = Field(
        default=limits.MAX_PIXELS,
        ge=1,
        le=10_000_000_000,
        description="Largest accepted image, in pixels (width x height).",
    )
    decode_slots: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=0,
        le=256,
        description="Images that one worker decodes at once, plus one of the express lane; 0: it decodes none and runs "
        "periodic jobs only. Unset: the number of processors.",
    )
    decode_timeout: types.UpToAnHour = Field(
        default=limits.DECODE_TIMEOUT, description="Elapsed seconds allowed to render one image."
    )
    decode_cpu_seconds: int = Field(
        default=limits.DECODE_CPU_SECONDS, ge=1, le=types.HOUR, description="CPU seconds allowed to render one image."
    )
    decode_memory: int = Field(
        default=limits.DECODE_MEMORY,
        ge=134_217_728,
        le=types.TEBIBYTE,
        description="Address space of one decoder process, in bytes.",
    )

    require_sandbox: bool = Field(default=False, description="Fail at startup if the sandbox is unavailable.")

    render_truncated: bool = Field(
        default=False, description="Render the readable part of incomplete files instead of ending them in ERROR."
    )

    lease_seconds: types.UpToADay = Field(
        default=60.0, description="Seconds after which a worker's claim ends unless it is extended."
    )
    heartbeat_seconds: types.UpToADay = Field(
        default=10.0,
        description="Seconds between extensions of a claim; at most half of LEASE_SECONDS.",
    )
    max_attempts: int = Field(
        default=5, ge=1, le=1000, description="Attempts without a result after which an image ends in ERROR."
    )
    max_decoder_failures: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Decoder failures on one image after which it ends in ERROR; a time-out is retried once at most.",
    )
    retry_delay: types.UpToAnHour = Field(
        default=2.0,
        description="Seconds before an image's second attempt; doubles with each further attempt.",
    )

    publish_timeout: float = Field(
        default=5.0, gt=0, le=5.0, description="Timeout for the broker to confirm a message, in seconds."
    )
    reconcile_interval: types.UpToAnHour = Field(default=5.0, description="Seconds between runs of the reconciler.")
    unqueued_after: types.UpToADay = Field(
        default=15.0,
        description="Seconds after which the reconciler queues an image that was not queued.",
    )
    unclaimed_after: types.UpToADay = Field(
        default=300.0,
        description="Seconds after which the reconciler queues an image again that no worker claimed and whose message "
        "is missing; doubles each time.",
    )
    sweep_interval: types.UpToADay = Field(default=600.0, description="Seconds between runs of the sweeper.")
    orphan_grace: float = Field(
        default=3600.0,
        gt=0,
        le=365 * types.DAY,
        description="Seconds for which a file without a row is kept before the sweeper deletes it.",
    )
    retain_originals_days: types.Days = Field(
        default=None,
        description="Days after which a finished image's original is deleted; unset: never.",
    )
    retain_images_days: types.Days = Field(
        default=None,
        description="Days after which a finished image is deleted with all its files; unset: never.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="Address that the metrics endpoint for Prometheus listens on."
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of the metrics endpoint (/metrics); 0 chooses a free one; unset: no metrics.",
    )
    metrics_interval: types.UpToAnHour = Field(
        default=10.0, description="Seconds between measurements of the backlog for the metrics."
    )
    otel_exporter_otlp_endpoint: types.CollectorUrl | None = Field(
        default=None,
        description="Collector for traces (OTLP over HTTP), such as http://collector:4318; unset: no tracing.",
    )
    drain_timeout: types.UpToADay = Field(
        default=25.0,
        description="Seconds after SIGTERM for which running work may continue; then it is cancelled and requeued.",
    )
    liveness_file: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / "image-service-worker.liveness",
        description="File that a worker updates while it is alive; `image-service healthcheck worker` reads it. "
        "Unset: in the system's temporary directory.",
    )

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, values: dict[str, object]) -> dict[str, object]:
        return cleaned(values)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.lease_seconds <= self.decode_timeout:
            msg = f"LEASE_SECONDS ({self.lease_seconds:g}) must be more than DECODE_TIMEOUT ({self.decode_timeout:g})"
            raise ValueError(msg)
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            msg = (
                f"HEARTBEAT_SECONDS ({self.heartbeat_seconds:g}) must be at most half of "
                f"LEASE_SECONDS ({self.lease_seconds:g})"
            )
            raise ValueError(msg)
        if self.files_delivery == "redirect" and self.object_storage is None:
            msg = "FILES_DELIVERY=redirect needs object storage: set STORAGE_URL to s3://…, gs://… or az://…"
            raise ValueError(msg)
        if self.embedded_queue and not self.decode_slots:
            msg = "DECODE_SLOTS=0 leaves all images to other workers, but without a broker there are none"
            raise ValueError(msg)
        if self.embedded_queue and self.events_exchange is not None:
            msg = f"EVENTS_EXCHANGE={self.events_exchange} is on a broker, and there is none: unset it, or use a broker"
            raise ValueError(msg)
        return self

    @cached_property
    def recipes(self) -> Recipes:
        """The recipes that images are rendered with. RECIPES_FILE is read once.

        Raises:
            InvalidRecipesError: it cannot be used.
        """
        return Recipes() if self.recipes_file is None else load_recipes(self.recipes_file)

    @property
    def object_storage(self) -> str | None:
        """The URL of the object storage; None if files are stored in a local directory."""
        return None if self.storage_url is None or self.storage_url.startswith("file:") else self.storage_url

    @property
    def storage_folder(self) -> Path:
        """The local directory for the files; with object storage, for scratch files only."""
        if self.storage_url is None or self.object_storage is not None:
            return self.storage_path
        return Path(unquote(urlsplit(self.storage_url).path))

    @property
    def embedded_queue(self) -> bool:
        """Whether the queue is in this process, without a broker."""
        return self.rabbitmq_url.get_secret_value().startswith(EMBEDDED_QUEUE)

    @property
    def traced(self) -> bool:
        """Whether traces are sent to a collector."""
        return self.otel_exporter_otlp_endpoint is not None

    @property
    def sole_process(self) -> bool:
        """Whether this process is the only one of the service: its queue and its database are its own."""
        return self.embedded_queue and self.database_url.get_secret_value().startswith(SQLITE)
