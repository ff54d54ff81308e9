"""The settings: defaults, validation, error messages and documentation."""

import os
import re
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from image_service.config import (
    ConfigError,
    Settings,
    doubts,
    formats,
    load_settings,
    settings_without_recipes,
    standalone_settings,
)
from image_service.domain.image import DEFAULT_FORMATS, ImageFormat

ROOT = Path(__file__).parents[2]
DOCUMENTED = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
COMPOSE = (ROOT / "docker-compose.yml").read_text()
COMPOSE_ONLY = {
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "POSTGRES_DB",
    "RABBITMQ_USER",
    "RABBITMQ_PASSWORD",
    "RABBITMQ_MANAGEMENT_HOST",
    "API_PUBLISH_HOST",
    "EXTRA_FORMATS",
}
NAMES = sorted(name.upper() for name in Settings.model_fields)
DEPENDS_ON_THE_MACHINE = {"DECODE_SLOTS", "LIVENESS_FILE"}


def shown(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper() in NAMES:
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("database_url", "postgresql+asyncpg://postgres:postgres@db:5432/images_db"),
        ("rabbitmq_url", "amqp://guest:guest@rabbit:5672/"),
        ("storage_path", Path("/app/storage")),
        ("max_file_size", 10485760),
        ("log_level", "INFO"),
        ("api_host", "0.0.0.0"),  # noqa: S104  (what is documented)
        ("api_port", 8000),
    ],
)
def test_the_documented_defaults_are_exactly_these(name: str, default: object) -> None:
    value = getattr(load_settings(), name)
    assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == default


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_FILE_SIZE", "1234")
    monkeypatch.setenv("STORAGE_PATH", "/srv/images")
    monkeypatch.setenv("SOMETHING_ELSE", "is ignored")
    settings = load_settings()
    assert settings.max_file_size == 1234
    assert settings.storage_path == Path("/srv/images")


def test_command_options_take_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "1234")
    assert load_settings(api_port=5678).api_port == 5678
    assert load_settings(api_port=None).api_port == 1234


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_value_means_the_default(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert load_settings() == Settings()


def test_compose_publishes_ports_on_this_machine_only_unless_configured() -> None:
    """The API has no authentication, and the broker's management page a well-known password."""
    services = yaml.safe_load(COMPOSE)["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(re.match(r"\$\{(API_PUBLISH|RABBITMQ_MANAGEMENT)_HOST:-127\.0\.0\.1\}:", port) for port in published)


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().api_port = 1


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("DATABASE_URL", "mysql://db/images", "must start with postgresql:// or sqlite+aiosqlite:///"),
        ("DATABASE_URL", "postgresql+psycopg://db/images", "must start with postgresql:// or sqlite+aiosqlite:///"),
        ("DATABASE_URL", "images.db", "must start with postgresql:// or sqlite+aiosqlite:///"),
        ("RABBITMQ_URL", "http://rabbit:15672/", "must start with amqp:// or amqps://"),
        ("RABBITMQ_URL", "rabbit", "must start with amqp:// or amqps://"),
        ("MAX_FILE_SIZE", "0", "greater than or equal to 1"),
        ("MAX_FILE_SIZE", "10MB", "valid integer"),
        ("MAX_FILE_SIZE", "1.5", "valid integer"),
        ("LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
        ("LOG_FORMAT", "xml", "'auto', 'json' or 'console'"),
        ("API_PORT", "-1", "greater than or equal to 0"),
        ("API_PORT", "65536", "less than or equal to 65535"),
        ("API_PORT", "http", "valid integer"),
        ("PUBLIC_URL", "img.example.org", "must look like https://img.example.org"),
        ("PUBLIC_URL", "ftp://img.example.org", "must look like https://img.example.org"),
        ("PUBLIC_URL", "https://", "must look like https://img.example.org"),
        ("PUBLIC_URL", "https://img.example.org/?a=b", "must look like https://img.example.org"),
        ("PUBLIC_URL", "https://img.example.org/#a", "must look like https://img.example.org"),
        ("PUBLIC_URL", "https://[", "invalid IPv6 URL"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,proxy", "'proxy' does not appear to be an IPv4 or IPv6 network"),
        ("TRUSTED_PROXIES", "10.0.0.0/33", "does not appear to be an IPv4 or IPv6 network"),
        ("ALLOWED_HOSTS", "https://img.example.org", "must name hosts such as img.example.org, without scheme"),
        ("ALLOWED_HOSTS", "img.example.org:8000", "must name hosts such as img.example.org, without scheme"),
        ("ALLOWED_HOSTS", "*.example.org", "must name hosts such as img.example.org, without scheme"),
        ("ALLOWED_ORIGINS", "app.example", "must name origins such as https://app.example"),
        ("ALLOWED_ORIGINS", "https://app.example/path", "must name origins such as https://app.example"),
        ("ALLOWED_ORIGINS", "null", "must name origins such as https://app.example"),
        ("UPLOAD_IDLE_TIMEOUT", "0", "greater than 0"),
        ("UPLOAD_IDLE_TIMEOUT", "30s", "valid number"),
        ("MAX_CONNECTIONS", "0", "greater than or equal to 1"),
        ("MAX_CONCURRENT_UPLOADS", "0", "greater than or equal to 1"),
        ("MAX_CONCURRENT_UPLOADS", "many", "valid integer"),
        ("MAX_BACKLOG", "0", "greater than or equal to 1"),
        ("RETAIN_ORIGINALS_DAYS", "0", "greater than 0"),
        ("RETAIN_ORIGINALS_DAYS", "never", "valid number"),
        ("RETAIN_IMAGES_DAYS", "-1", "greater than 0"),
        ("RETAIN_IMAGES_DAYS", "inf", "finite number"),
        (
            "ENABLED_FORMATS",
            "jpeg,svg",
            "must name one or more of jpeg, png, gif, webp, avif, heic, jxl, tiff, bmp, separated by commas",
        ),
        (
            "ENABLED_FORMATS",
            "jpeg png",
            "must name one or more of jpeg, png, gif, webp, avif, heic, jxl, tiff, bmp, separated by commas",
        ),
        ("ENABLED_FORMATS", "image/jpeg", "must name one or more of jpeg, png"),
        ("ENABLED_FORMATS", "pdf", "must name one or more of jpeg, png"),
        ("ENABLED_FORMATS", "all", "must name one or more of jpeg, png"),
        ("ENABLED_FORMATS", ",", "must name one or more of jpeg, png"),
        ("RENDER_TRUNCATED", "maybe", "valid boolean"),
        ("MAX_PIXELS", "0", "greater than or equal to 1"),
        ("DECODE_SLOTS", "-1", "greater than or equal to 0"),
        ("DECODE_SLOTS", "257", "less than or equal to 256"),
        ("DECODE_TIMEOUT", "0", "greater than 0"),
        ("DECODE_CPU_SECONDS", "0", "greater than or equal to 1"),
        ("DECODE_MEMORY", "1000000", "greater than or equal to 134217728"),
        ("LEASE_SECONDS", "-60", "greater than 0"),
        ("LEASE_SECONDS", "inf", "finite number"),
        ("LEASE_SECONDS", "nan", "finite number"),
        ("HEARTBEAT_SECONDS", "0", "greater than 0"),
        ("MAX_ATTEMPTS", "0", "greater than or equal to 1"),
        ("MAX_DECODER_FAILURES", "0", "greater than or equal to 1"),
        ("RETRY_DELAY", "0", "greater than 0"),
        ("PUBLISH_TIMEOUT", "0", "greater than 0"),
        ("PUBLISH_TIMEOUT", "5.1", "less than or equal to 5"),
        ("RECONCILE_INTERVAL", "0", "greater than 0"),
        ("UNQUEUED_AFTER", "0", "greater than 0"),
        ("UNCLAIMED_AFTER", "0", "greater than 0"),
        ("SWEEP_INTERVAL", "0", "greater than 0"),
        ("ORPHAN_GRACE", "0", "greater than 0"),
        ("DRAIN_TIMEOUT", "0", "greater than 0"),
    ],
)
def test_an_invalid_value_is_refused_in_one_sentence_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    shown = name if name in {"DATABASE_URL", "RABBITMQ_URL"} else f"{name}={value}"
    message = str(caught.value)
    assert message.startswith(f"{shown} is not usable: ")
    assert problem in message
    assert message.endswith(".")
    assert not re.search(r"[.\n]\s", message)


def test_several_invalid_values_are_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "http")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(ConfigError, match=r"^LOG_LEVEL=LOUD is .*[^.]; API_PORT=http is .*[^.]\.$"):
        load_settings()


@pytest.mark.parametrize(
    "value",
    [
        "mysql://service:s3cret@db/images",
        "amqp//service:s3cret@rabbit",
        "service:s3cret@db",
        "https://rabbit/?password=s3cret",
        "'postgresql+asyncpg://service:s3cret@db/images'",
    ],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "RABBITMQ_URL"])
def test_passwords_are_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert "s3cret" not in str(caught.value)


SCHEMES = {"DATABASE_URL": "postgresql+asyncpg", "RABBITMQ_URL": "amqp", "OTEL_EXPORTER_OTLP_ENDPOINT": "https"}


@pytest.mark.parametrize(
    "rest",
    [
        "service:s3cr/et99@host:5672/images",
        "service:5672/et99@host/images",
        "s3cr/et99:w0rd@host/images",
        "service:s3cr@et99@host/images",
        "service:s3cr@et99:w0rd@host:5672/images",
        "service:s3cr?et99@host/images",
        "service:s3cr#et99@host/images",
        "service:s3cr[et99@host/images",
        "service:s3cr]et99@host/images",
        "service:s3cr/et99",
        "service:s3cret99",
        "service:w0rd@host:s3cret99/images",
        "service:w0rd@host:99999/images",
        "service:s3cr\N{DOUBLE EXCLAMATION MARK}et99\N{FULLWIDTH COMMERCIAL AT}host/images",
    ],
)
@pytest.mark.parametrize("name", SCHEMES)
def test_a_url_with_an_unescaped_password_is_refused_and_no_piece_of_it_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, rest: str
) -> None:
    monkeypatch.setenv(name, f"{SCHEMES[name]}://{rest}")
    with pytest.raises(ConfigError) as refused:
        load_settings()
    message = str(refused.value)
    assert message.startswith(f"{name} is not usable: must look like scheme://user:password@host:port/name")
    assert "%2F for /" in message
    for piece in ("s3cr", "et99", "w0rd", "5672", "99999", "images"):
        assert piece not in message
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    "rest",
    [
        "service:s3cr%2Fet%4099%3A%23@host:5672/images",
        "service:s3cr:et99%@host/images",
        "service@host/images",
        "host",
        "[2001:db8::1]:5672/images",
        "/images",
    ],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "RABBITMQ_URL"])
def test_a_url_that_can_be_read_in_one_way_only_is_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, rest: str
) -> None:
    url = f"{SCHEMES[name]}://{rest}"
    monkeypatch.setenv(name, url)
    assert getattr(load_settings(), name.lower()).get_secret_value() == url


def test_the_path_of_an_sqlite_database_may_contain_anything(tmp_path: Path) -> None:
    settings = standalone_settings(tmp_path / "me@home" / "a:b#c?d")
    assert settings.database_url.get_secret_value().endswith("/me@home/a:b#c?d/images.db")


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, scheme in SCHEMES.items():
        monkeypatch.setenv(name, f"{scheme}://service:s3cret@host/images")
    settings = load_settings()
    dumped = (
        str(settings),
        repr(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
        f"{vars(settings)}",
    )
    assert not any("s3cret" in text for text in dumped)


def test_an_invalid_value_does_not_repeat_the_password_of_a_valid_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://service:s3cret@db/images")
    monkeypatch.setenv("HEARTBEAT_SECONDS", "59")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("timeout", ["60", "61"])
def test_the_lease_must_exceed_the_decode_timeout(monkeypatch: pytest.MonkeyPatch, timeout: str) -> None:
    monkeypatch.setenv("DECODE_TIMEOUT", timeout)
    message = rf"^LEASE_SECONDS \(60\) must be more than DECODE_TIMEOUT \({timeout}\)\.$"
    with pytest.raises(ConfigError, match=message):
        load_settings()


def test_the_heartbeat_must_be_at_most_half_of_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTBEAT_SECONDS", "30")
    assert load_settings().heartbeat_seconds == 30
    monkeypatch.setenv("HEARTBEAT_SECONDS", "30.5")
    message = r"^HEARTBEAT_SECONDS \(30\.5\) must be at most half of LEASE_SECONDS \(60\)\.$"
    with pytest.raises(ConfigError, match=message):
        load_settings()


def test_a_standalone_service_needs_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECODE_SLOTS", "0")
    assert load_settings().decode_slots == 0
    with pytest.raises(ConfigError, match=r"^DECODE_SLOTS=0 leaves all images to other workers, but without a broker"):
        standalone_settings(Path("data"))


def test_a_standalone_service_has_no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_EXCHANGE", "image.events")
    assert load_settings().events_exchange == "image.events"
    with pytest.raises(
        ConfigError, match=r"^EVENTS_EXCHANGE=image\.events is on a broker, and there is none: unset it"
    ):
        standalone_settings(Path("data"))


def test_urls_of_events_without_a_host_are_doubted() -> None:
    (doubt,) = doubts(load_settings(events_exchange="image.events"), {})
    assert "Set PUBLIC_URL" in doubt
    assert not doubts(load_settings(events_exchange="image.events", public_url="https://img.example.org"), {})


def test_retention_is_off_by_default() -> None:
    settings = load_settings()
    assert (settings.retain_originals_days, settings.retain_images_days) == (None, None)


def test_retention_may_be_a_fraction_of_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETAIN_ORIGINALS_DAYS", "0.5")
    assert load_settings().retain_originals_days == 0.5


def test_the_log_level_may_be_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert load_settings().log_level == "DEBUG"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://img.example.org", "https://img.example.org"),
        ("https://example.org/images-api/", "https://example.org/images-api"),
        ("http://localhost:8000//", "http://localhost:8000"),
    ],
)
def test_the_trailing_slash_of_the_public_url_is_removed(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv("PUBLIC_URL", value)
    assert load_settings().public_url == expected


@pytest.mark.parametrize(
    ("value", "networks"),
    [
        ("10.0.0.1", ["10.0.0.1/32"]),
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.1.2.3/8", ["10.0.0.0/8"]),
        (" 10.0.0.0/8 , 2001:db8::/32,", ["10.0.0.0/8", "2001:db8::/32"]),
        ("::1", ["::1/128"]),
        (",", []),
    ],
)
def test_trusted_proxies_are_comma_separated_addresses_and_networks(
    monkeypatch: pytest.MonkeyPatch, value: str, networks: list[str]
) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", value)
    assert load_settings().trusted_proxies == tuple(ip_network(network) for network in networks)


def test_only_this_machine_is_a_trusted_proxy_by_default() -> None:
    assert load_settings().trusted_proxies == (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("img.example.org", ("img.example.org",)),
        (" IMG.example.org. , rack_7,", ("img.example.org", "rack_7")),
        ("*", ("*",)),
        (",", ()),
    ],
)
def test_allowed_hosts_are_comma_separated_names(
    monkeypatch: pytest.MonkeyPatch, value: str, hosts: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", value)
    assert load_settings().allowed_hosts == hosts


def test_any_host_is_allowed_unless_the_setting_is_given_and_in_standalone_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().allowed_hosts is None
    assert standalone_settings(tmp_path).allowed_hosts == ()
    monkeypatch.setenv("ALLOWED_HOSTS", "*")
    assert standalone_settings(tmp_path).allowed_hosts == ("*",)


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://app.example", ("https://app.example",)),
        (" HTTPS://App.example/ , http://localhost:3000,", ("https://app.example", "http://localhost:3000")),
        ("https://a:443,http://b:80,https://c:80", ("https://a", "http://b", "https://c:80")),
        ("capacitor://localhost", ("capacitor://localhost",)),
        ("*", ("*",)),
    ],
)
def test_allowed_origins_are_as_browsers_send_them(
    monkeypatch: pytest.MonkeyPatch, value: str, origins: tuple[str, ...]
) -> None:
    assert load_settings().allowed_origins is None
    monkeypatch.setenv("ALLOWED_ORIGINS", value)
    assert load_settings().allowed_origins == origins


@pytest.mark.parametrize(
    ("value", "formats"),
    [
        ("jpeg", {"jpeg"}),
        ("jpeg,png,gif,webp,avif,heic,jxl,tiff,bmp", set(ImageFormat)),
        (" JPEG , heic,jpeg,", {"jpeg", "heic"}),
        ("jpeg,jxl,", {"jpeg", "jxl"}),
    ],
)
def test_formats_are_enabled_by_name(monkeypatch: pytest.MonkeyPatch, value: str, formats: set[str]) -> None:
    monkeypatch.setenv("ENABLED_FORMATS", value)
    assert load_settings().enabled_formats == formats


def test_the_default_formats_are_enabled_by_default() -> None:
    assert load_settings().enabled_formats == DEFAULT_FORMATS


@pytest.mark.parametrize(
    ("name", "package", "module"), [("heic", "pillow-heif", "pillow_heif"), ("jxl", "imagecodecs", "imagecodecs")]
)
def test_format_is_enabled_only_where_its_decoder_is_installed(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("ENABLED_FORMATS", f"jpeg,{name}")
    message = (
        rf"^ENABLED_FORMATS=jpeg,{name} is not usable: {name} needs the package {package}, which is not installed: "
        rf"install image-processing-service\[{name}\], or build the container images with "
        rf"--build-arg EXTRA_FORMATS={name}\.$"
    )
    with pytest.raises(ConfigError, match=message):
        load_settings()
    monkeypatch.setenv("ENABLED_FORMATS", "jpeg,tiff,bmp")
    assert load_settings().enabled_formats == {"jpeg", "tiff", "bmp"}


def test_tells_which_formats_are_enabled_and_which_could_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    found = formats({ImageFormat.PNG, ImageFormat.JPEG})
    assert found == ("jpeg,png", "avif,bmp,gif,heic,tiff,webp", "jxl")
    assert formats(set(ImageFormat) - {ImageFormat.JXL}).available == ""


def test_enabling_a_format_loads_no_decoder() -> None:
    code = (
        "import sys; from image_service.config import load_settings; load_settings(); "
        "from image_service.program import api; "
        "print([each for each in ('PIL', 'pillow_heif', 'imagecodecs', 'numpy') if each in sys.modules])"
    )
    environment = os.environ | {"ENABLED_FORMATS": ",".join(ImageFormat)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)  # noqa: S603
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize("part", ["sdk", "exporter", "instrumentation"])
def test_tracing_is_enabled_only_where_its_packages_are_installed(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    assert not load_settings().traced
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@collector:4318")
    assert load_settings().traced
    monkeypatch.setitem(sys.modules, f"opentelemetry.{part}", None)
    message = (
        r"^OTEL_EXPORTER_OTLP_ENDPOINT is not usable: traces need packages that are not installed: "
        r"install image-processing-service\[otel\]\.$"
    )
    with pytest.raises(ConfigError, match=message):
        load_settings()


def test_signatures_v1a_are_made_only_where_their_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SIGNATURES", "v1a")
    assert load_settings().webhook_signatures == "v1a"
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match=r"^WEBHOOK_SIGNATURES=v1a .*install image-processing-service\[ed25519\]\.$"):
        load_settings()


@pytest.mark.parametrize("value", ["collector:4318", "grpc://collector:4317", "http://"])
def test_an_invalid_collector_url_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", value)
    with pytest.raises(ConfigError, match=r"must look like http://collector:4318\.$"):
        load_settings()


def test_the_queue_is_embedded_when_the_url_says_so() -> None:
    assert load_settings(rabbitmq_url="embedded://").embedded_queue
    assert not load_settings().embedded_queue


def test_a_process_is_the_sole_one_only_with_its_own_queue_and_database(tmp_path: Path) -> None:
    assert standalone_settings(tmp_path).sole_process
    assert not standalone_settings(tmp_path, database_url="postgresql+asyncpg://db/images").sole_process
    assert not standalone_settings(tmp_path, rabbitmq_url="amqp://rabbit/").sole_process


def test_standalone_needs_no_server(tmp_path: Path) -> None:
    settings = standalone_settings(tmp_path)
    assert settings.database_url.get_secret_value() == f"sqlite+aiosqlite:///{tmp_path}/images.db"
    assert settings.embedded_queue
    assert settings.storage_path == tmp_path / "storage"
    assert settings.api_host == "127.0.0.1"
    assert settings.api_port == 8000


def test_a_relative_data_directory_is_resolved_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = standalone_settings(Path("data"))
    monkeypatch.chdir("/")
    assert settings.storage_path == tmp_path / "data" / "storage"
    assert settings.database_url.get_secret_value() == f"sqlite+aiosqlite:///{tmp_path}/data/images.db"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql+asyncpg://db/images"),
        ("RABBITMQ_URL", "amqp://rabbit/"),
        ("STORAGE_PATH", "/srv/images"),
        ("API_HOST", "192.0.2.1"),
    ],
)
def test_standalone_uses_what_the_environment_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    others = {
        key: setting for key, setting in standalone_settings(tmp_path).model_dump().items() if key != name.lower()
    }
    assert shown(getattr(standalone_settings(tmp_path), name.lower())) == value
    monkeypatch.setenv(name, "")
    unset = standalone_settings(tmp_path).model_dump()
    assert shown(unset.pop(name.lower())) != value
    assert others == unset


def test_command_options_take_precedence_in_standalone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_HOST", "192.0.2.1")
    settings = standalone_settings(tmp_path, api_host="192.0.2.2", api_port=0)
    assert (settings.api_host, settings.api_port) == ("192.0.2.2", 0)
    assert standalone_settings(tmp_path, api_host=None).api_host == "192.0.2.1"


def test_standalone_refuses_an_invalid_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^API_PORT=70000 is not usable: .*\.$"):
        standalone_settings(tmp_path, api_port=70000)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/below/it", "gs://bucket", "az://container/below"])
def test_with_object_storage_the_storage_path_holds_scratch_files(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("STORAGE_URL", url)
    monkeypatch.setenv("STORAGE_PATH", "/srv/work")
    settings = load_settings()
    assert (settings.object_storage, settings.storage_folder) == (url, Path("/srv/work"))


@pytest.mark.parametrize("url", ["file:///srv/my%20images", "file://localhost/srv/my%20images"])
def test_a_file_url_is_a_local_directory(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("STORAGE_URL", url)
    settings = load_settings()
    assert (settings.object_storage, settings.storage_folder) == (None, Path("/srv/my images"))


@pytest.mark.parametrize(
    "url",
    [
        "/srv/images",
        "s3://",
        "s3:bucket",
        "ftp://host/x",
        "memory://",
        "file://elsewhere/srv",
        "file:relative",
        "s3://secret@bucket",
        "s3://key:secret@bucket",
        "s3://key:se/cret@bucket",
        "s3://[secret",
        "s3://bucket?secret",
        "s3://bucket#secret",
    ],
)
def test_an_invalid_storage_url_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("STORAGE_URL", url)
    with pytest.raises(ConfigError, match=r"^STORAGE_URL is not usable: must look like s3://bucket/prefix") as refused:
        load_settings()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", [None, "file:///srv/images"])
def test_redirects_need_object_storage(monkeypatch: pytest.MonkeyPatch, url: str | None) -> None:
    monkeypatch.setenv("FILES_DELIVERY", "redirect")
    monkeypatch.setenv("STORAGE_URL", url or "")
    with pytest.raises(ConfigError, match=r"^FILES_DELIVERY=redirect needs object storage: set STORAGE_URL"):
        load_settings()
    monkeypatch.setenv("STORAGE_URL", "s3://bucket")
    assert load_settings().files_delivery == "redirect"


def test_recipes_are_read_once_and_only_where_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "recipes.toml"
    monkeypatch.setenv("RECIPES_FILE", str(file))
    assert settings_without_recipes().recipes_file == file
    message = rf"^RECIPES_FILE={file} is not usable: {file}: cannot be read: No such file or directory\.$"
    with pytest.raises(ConfigError, match=message):
        load_settings()
    with pytest.raises(ConfigError, match=message):
        standalone_settings(tmp_path)
    file.write_text('[[recipes.one.presets]]\nname = "a"\nwidth = 1\n')
    settings = load_settings()
    file.unlink()
    assert settings.recipes.names == ("default", "one")
    assert settings == Settings()


def test_without_a_file_there_is_only_the_default_recipe() -> None:
    assert load_settings().recipes.names == ("default",)


def test_compose_mounts_the_example_or_what_the_setting_names() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    for name in ("api", "worker"):
        (mount,) = [each for each in services[name]["volumes"] if isinstance(each, dict)]
        assert mount == {
            "type": "bind",
            "source": "${RECIPES_FILE:-./deploy/recipes.toml}",
            "target": services[name]["environment"]["RECIPES_FILE"],
            "read_only": True,
            "bind": {"create_host_path": False},
        }
    assert (ROOT / "deploy/recipes.toml").exists()


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_example_file_names_exactly_the_settings() -> None:
    assert set(DOCUMENTED) == {*NAMES, *COMPOSE_ONLY}


@pytest.mark.parametrize("name", NAMES)
def test_the_example_file_shows_the_real_default(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    default = getattr(Settings(), name.lower())
    assert (DOCUMENTED[name] == "") == (default in {None, ()} or name in DEPENDS_ON_THE_MACHINE)
    monkeypatch.setenv(name, DOCUMENTED[name])
    assert getattr(load_settings(), name.lower()) == default


@pytest.mark.parametrize("name", sorted(COMPOSE_ONLY))
def test_the_example_file_shows_the_compose_files_default(name: str) -> None:
    defaults = set(re.findall(rf"\$\{{{name}:-([^}}]*)\}}", COMPOSE))
    assert defaults == {DOCUMENTED[name]}


@pytest.mark.parametrize("name", NAMES)
def test_compose_passes_on_every_setting_that_may_change(name: str) -> None:
    fixed = {"STORAGE_PATH", "RECIPES_FILE", "API_HOST", "LIVENESS_FILE", "METRICS_HOST"}
    passed_on = rf"^ +{name}:( \$\{{{name}:-.+\}})?$"
    assert bool(re.search(passed_on, COMPOSE, re.MULTILINE)) == (name not in fixed)
