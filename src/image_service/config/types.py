"""Validated types of settings. Errors are half a sentence that follows the name of the setting."""

import re
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from image_service.config.decoders import explain_missing
from image_service.config.server_urls import broker_url, database_url, parts_of
from image_service.domain.image import ImageFormat

HOUR: Final = 3600
DAY: Final = 86_400
"""Seconds."""
GIBIBYTE: Final = 1024**3
TEBIBYTE: Final = 1024**4
"""Bytes."""

_HOST_NAME: Final = re.compile(r"[a-z0-9._-]{1,255}")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}://[^/?#@\s]+/?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_NEVER_IN_BUCKETS: Final = re.compile(r"[@:]")
"""Of a key in front of a bucket: after ``s3://key:sec/ret@bucket``, the bucket would be ``key:sec``."""
_OBJECT_STORAGES: Final = frozenset({"s3", "gs", "az"})


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _database_url(value: SecretStr) -> SecretStr:
    return SecretStr(database_url(value.get_secret_value()))


def _queue_url(value: SecretStr) -> SecretStr:
    return SecretStr(broker_url(value.get_secret_value()))


def _storage_url(value: str) -> str:
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
        return value
    usable = parts.scheme in _OBJECT_STORAGES and parts.netloc and not _NEVER_IN_BUCKETS.search(parts.netloc)
    if not usable or parts.query or parts.fragment:
        msg = (
            "must look like s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder, "
            "and contain no password: keys belong in variables such as AWS_ACCESS_KEY_ID"
        )
        raise ValueError(msg)
    return value


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
        msg = "must look like https://img.example.org or https://example.org/images-api"
        raise ValueError(msg)
    return value.rstrip("/")


def _collector_url(value: SecretStr) -> SecretStr:
    parts = parts_of(value.get_secret_value())
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        msg = "must look like http://collector:4318"
        raise ValueError(msg)
    if not all(find_spec(f"opentelemetry.{part}") for part in ("sdk", "exporter", "instrumentation")):
        msg = "traces need packages that are not installed: install image-processing-service[otel]"
        raise ValueError(msg)
    return value


def _signatures(value: str) -> str:
    if value == "v1a" and not find_spec("cryptography"):
        msg = "v1a needs a package that is not installed: install image-processing-service[ed25519]"
        raise ValueError(msg)
    return value


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip())


def _names(value: str) -> list[str]:
    return [name.strip().lower() for name in value.split(",") if name.strip()]


def _hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = _names(value)
    if not all(name == "*" or _HOST_NAME.fullmatch(name) for name in names):
        msg = "must name hosts such as img.example.org, without scheme, port and path, separated by commas"
        raise ValueError(msg)
    return tuple(name.removesuffix(".") for name in names)


def _origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    origins = _names(value)
    if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
        msg = "must name origins such as https://app.example or http://localhost:3000, separated by commas"
        raise ValueError(msg)
    return tuple(_as_browsers_send(origin.removesuffix("/")) for origin in origins)


def _as_browsers_send(origin: str) -> str:
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], ""))


def _formats(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = frozenset(name.strip().lower() for name in value.split(",") if name.strip())
    if not names or not names.issubset(ImageFormat):
        msg = f"must name one or more of {', '.join(ImageFormat)}, separated by commas"
        raise ValueError(msg)
    if missing := [reason for name in sorted(names) if (reason := explain_missing(name))]:
        raise ValueError("; ".join(missing))
    return names


# Of the type SecretStr are values that may contain a password: no log line, traceback or message shows one.
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
QueueUrl = Annotated[SecretStr, AfterValidator(_queue_url)]
StorageUrl = Annotated[str, AfterValidator(_storage_url)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
CollectorUrl = Annotated[SecretStr, AfterValidator(_collector_url)]
UpToAnHour = Annotated[float, Field(gt=0, le=HOUR)]
UpToADay = Annotated[float, Field(gt=0, le=DAY)]
"""Seconds."""
Days = Annotated[float | None, Field(gt=0, le=36_500)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]
Signatures = Annotated[Literal["v1", "v1a"], AfterValidator(_signatures)]
"""Of Standard Webhooks."""
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]
"""Comma-separated addresses and networks."""
Hosts = Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_hosts)]
"""Comma-separated host names, or ``*``."""
Origins = Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_origins)]
"""Comma-separated origins (RFC 6454), or ``*``."""
Formats = Annotated[frozenset[ImageFormat], NoDecode, BeforeValidator(_formats)]
"""Comma-separated names of formats."""
