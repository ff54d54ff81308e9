"""Every setting of the program, read from the environment and checked before anything starts."""

import os
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args
from urllib.parse import unquote, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

EMBEDDED_QUEUE: Final = "embedded://"
"""The ``RABBITMQ_URL`` that means: no broker, the queue lives in this process."""

_SQLITE: Final = "sqlite+aiosqlite:///"
_DATABASES: Final = ("postgresql+asyncpg://", _SQLITE)

# Their values hold passwords, and whatever is wrong with them they are not repeated.
_SECRET: Final = frozenset({"database_url", "rabbitmq_url", "storage_url", "otel_exporter_otlp_endpoint"})

_OBJECT_STORAGES: Final = frozenset({"s3", "gs", "az"})


FormatName = Literal["jpeg", "png", "gif", "webp", "avif", "heic", "tiff", "bmp"]
"""What can be enabled: every format that there is a decoder for, and nothing else."""


class ConfigError(Exception):
    """A setting has a value the program cannot start with; the message is one sentence that names it."""


class Settings(BaseSettings):
    """The settings, by their environment names in lower case; each field's description says what it does."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True, allow_inf_nan=False)

    database_url: str = Field(
        default="postgresql+asyncpg://postgres:postgres@db:5432/images_db",
        description="Where images are recorded: postgresql+asyncpg://… or sqlite+aiosqlite:///…",
    )
    rabbitmq_url: str = Field(
        default="amqp://guest:guest@rabbit:5672/",
        description="The broker: amqp://… or amqps://…; standalone uses embedded:// (no broker).",
    )
    storage_path: Path = Field(
        default=Path("/app/storage"),
        description="The folder for originals and thumbnails; with an object storage, for what is being worked on.",
    )
    storage_url: str | None = Field(
        default=None,
        description="Where files are kept instead: s3://bucket/prefix, gs://…, az://… or file:///folder.",
    )
    storage_timeout: float = Field(
        default=4.0,
        gt=0,
        description="Seconds an object storage has to take an image in, before the upload is refused.",
    )
    files_delivery: Literal["proxy", "redirect"] = Field(
        default="proxy", description="Whether the API sends files, or sends clients to the object storage for them."
    )
    max_file_size: int = Field(default=10_485_760, ge=1, description="Largest accepted upload, in bytes.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="Least severity that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: readable on a terminal, JSON lines elsewhere."
    )
    api_host: str = Field(default="0.0.0.0", description="Address the API listens on.")  # noqa: S104 — a container's port is published or not by its host; standalone listens on loopback
    api_port: int = Field(default=8000, ge=0, le=65535, description="Port the API listens on; 0 picks a free one.")

    public_url: str | None = Field(
        default=None, description="Base of the URLs in answers, such as https://img.example.org; unset: as requested."
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
        description="Comma-separated addresses or networks whose X-Forwarded-* headers are believed.",
    )
    upload_idle_timeout: float = Field(
        default=30.0, gt=0, description="Seconds without a byte after which an upload is given up."
    )

    max_concurrent_uploads: int = Field(
        default=256, ge=1, description="Uploads that one API process takes in at once; more are answered 429."
    )
    max_backlog: int = Field(
        default=200_000, ge=1, description="Unfinished images beyond which uploads are answered 503."
    )

    enabled_formats: Annotated[frozenset[FormatName], NoDecode] = Field(
        default=frozenset({"jpeg", "png", "gif", "webp", "avif"}),
        description="Comma-separated formats that are accepted; heic, tiff and bmp can be added.",
    )
    max_pixels: int = Field(default=50_000_000, ge=1, description="Largest accepted image, in pixels (width x height).")
    decode_slots: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=0,
        le=256,
        description="Images decoded at once by one worker, beside one small one; 0: none, it only mends and sweeps.",
    )
    decode_timeout: float = Field(default=20.0, gt=0, description="Seconds one image may take to render, by the clock.")
    decode_cpu_seconds: int = Field(default=10, ge=1, description="CPU seconds one image may take to render.")
    decode_memory: int = Field(
        default=1_073_741_824, ge=134_217_728, description="Address space one decoder process may use, in bytes."
    )

    require_sandbox: bool = Field(
        default=False, description="Whether a kernel without the means to shut decoders in is refused, not warned of."
    )

    render_truncated: bool = Field(
        default=False, description="Whether an incomplete file is rendered as far as it goes instead of ending ERROR."
    )

    lease_seconds: float = Field(default=60.0, gt=0, description="Seconds a claim lasts without a sign of life.")
    heartbeat_seconds: float = Field(default=10.0, gt=0, description="Seconds between a worker's signs of life.")
    max_attempts: int = Field(default=5, ge=1, description="Interrupted attempts after which an image ends in ERROR.")
    max_decoder_failures: int = Field(
        default=3, ge=1, description="Deaths of the decoder on one image after which it ends in ERROR."
    )
    retry_delay: float = Field(default=2.0, gt=0, description="Seconds before an image is tried again; doubles.")

    publish_timeout: float = Field(default=5.0, gt=0, le=5.0, description="Seconds the broker has to confirm.")
    reconcile_interval: float = Field(default=5.0, gt=0, description="Seconds between the reconciler's rounds.")
    unqueued_after: float = Field(
        default=15.0, gt=0, description="Seconds after which an image that was never queued is queued again."
    )
    unclaimed_after: float = Field(
        default=300.0, gt=0, description="Seconds after which a queued image nobody took is queued again; doubles."
    )
    sweep_interval: float = Field(default=600.0, gt=0, description="Seconds between searches for orphaned files.")
    orphan_grace: float = Field(default=3600.0, gt=0, description="Age in seconds below which no file is an orphan.")
    retain_originals_days: float | None = Field(
        default=None, gt=0, description="Days after which a finished image's original is removed; unset: never."
    )
    retain_images_days: float | None = Field(
        default=None, gt=0, description="Days after which a finished image is removed with all its files; unset: never."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address on which metrics are served to Prometheus.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port for that, at /metrics; 0 picks a free one; unset: none."
    )
    metrics_interval: float = Field(
        default=10.0, gt=0, description="Seconds between counts of what is unfinished, for the metrics."
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        default=None,
        description="Where traces are sent (OTLP over HTTP), such as http://collector:4318; unset: nowhere.",
    )
    drain_timeout: float = Field(
        default=25.0, gt=0, description="Seconds that running work has to finish after SIGTERM before it is given back."
    )
    liveness_file: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / "image-service-worker.liveness",
        description="File by which a worker tells `image-service healthcheck worker` that it can do its job.",
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if not value.startswith(_DATABASES):
            msg = f"must start with {' or '.join(_DATABASES)}"
            raise ValueError(msg)
        return value

    @field_validator("rabbitmq_url")
    @classmethod
    def _known_queue(cls, value: str) -> str:
        if not value.startswith(("amqp://", "amqps://", EMBEDDED_QUEUE)):
            msg = "must start with amqp:// or amqps://"
            raise ValueError(msg)
        return value

    @field_validator("storage_url")
    @classmethod
    def _known_storage(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
            return value
        usable = parts.scheme in _OBJECT_STORAGES and parts.netloc and "@" not in parts.netloc
        if not usable or parts.query or parts.fragment:
            msg = (
                "must look like s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder, "
                "and hold no password: keys belong into variables such as AWS_ACCESS_KEY_ID"
            )
            raise ValueError(msg)
        return value

    @field_validator("public_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
            msg = "must look like https://img.example.org or https://example.org/images-api"
            raise ValueError(msg)
        return value.rstrip("/")

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            msg = "must look like http://collector:4318"
            raise ValueError(msg)
        if not all(find_spec(f"opentelemetry.{part}") for part in ("sdk", "exporter", "instrumentation")):
            msg = "traces need packages that are not installed: install image-processing-service[otel]"
            raise ValueError(msg)
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip())

    @field_validator("enabled_formats", mode="before")
    @classmethod
    def _formats(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = frozenset(name.strip().lower() for name in value.split(",") if name.strip())
        possible = get_args(FormatName)
        if not names or not names.issubset(possible):
            msg = f"must name one or more of {', '.join(possible)}, with commas between"
            raise ValueError(msg)
        if "heic" in names and find_spec("pillow_heif") is None:
            msg = "heic needs the package pillow-heif, which is not installed: install image-processing-service[heic]"
            raise ValueError(msg)
        return names

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
            msg = "FILES_DELIVERY=redirect needs an object storage: set STORAGE_URL to s3://…, gs://… or az://…"
            raise ValueError(msg)
        if self.embedded_queue and not self.decode_slots:
            msg = "DECODE_SLOTS=0 leaves the images to other workers, and there are none without a broker"
            raise ValueError(msg)
        return self

    @property
    def object_storage(self) -> str | None:
        """The URL of the object storage that keeps the files; None if a folder does."""
        return None if self.storage_url is None or self.storage_url.startswith("file:") else self.storage_url

    @property
    def storage_folder(self) -> Path:
        """The local folder that keeps the files, or with an object storage, what is being worked on."""
        if self.storage_url is None or self.object_storage is not None:
            return self.storage_path
        return Path(unquote(urlsplit(self.storage_url).path))

    @property
    def embedded_queue(self) -> bool:
        """Whether the queue lives in this process instead of a broker."""
        return self.rabbitmq_url.startswith(EMBEDDED_QUEUE)

    @property
    def traced(self) -> bool:
        """Whether traces are sent anywhere."""
        return self.otel_exporter_otlp_endpoint is not None

    @property
    def sole_process(self) -> bool:
        """Whether no other process can have a part in the work: queue and database belong to this one."""
        return self.embedded_queue and self.database_url.startswith(_SQLITE)


def load_settings(**given: object) -> Settings:
    """The settings from the environment; ``given`` values (a command's options) come before it.

    Raises:
        ConfigError: a value is wrong.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked by pydantic at run time
    except ValidationError as error:
        raise ConfigError(_one_sentence(error)) from None


def standalone_settings(data: Path, environ: Mapping[str, str] = os.environ, **given: object) -> Settings:
    """The settings for one process on one machine: what the environment does not set needs no server.

    Raises:
        ConfigError: a value is wrong.
    """
    data = data.absolute()
    own: dict[str, object] = {
        "database_url": f"{_SQLITE}{data / 'images.db'}",
        "rabbitmq_url": EMBEDDED_QUEUE,
        "storage_path": data / "storage",
        "liveness_file": data / "worker.liveness",
        "api_host": "127.0.0.1",
    }
    unset = {name: value for name, value in own.items() if not environ.get(name.upper())}
    return load_settings(**{**unset, **{name: value for name, value in given.items() if value is not None}})


def _one_sentence(error: ValidationError) -> str:
    return "; ".join(_problem(problem) for problem in error.errors(include_url=False)) + "."


def _problem(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    field = str(problem["loc"][0])
    setting = field.upper() if field in _SECRET else f"{field.upper()}={problem['input']}"
    return f"{setting} is not usable: {message[0].lower()}{message[1:]}"
