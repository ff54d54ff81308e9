"""White space, quotes, control characters, bounds and misspelled names, for every setting alike."""

from pathlib import Path
from typing import get_args

import pytest
from annotated_types import Le

from image_service.config import ConfigError, Settings, doubts, load_settings, standalone_settings
from image_service.config.raw_values import cleaned, misspelled

NUMBERS = {
    name: field
    for name, field in Settings.model_fields.items()
    if {int, float} & {field.annotation, *get_args(field.annotation)}
}


def test_white_space_around_a_value_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"STORAGE_PATH": " /srv/images\n", "DATABASE_URL": "\tpostgres://db/images ", "API_PORT": " 1 "}
    for name, value in {**given, "PUBLIC_URL": "  ", "LOG_LEVEL": "\n"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.storage_path == Path("/srv/images")
    assert settings.database_url.get_secret_value() == "postgresql+asyncpg://db/images"
    assert (settings.api_port, settings.public_url, settings.log_level) == (1, None, "INFO")
    monkeypatch.setenv("STORAGE_PATH", " ")
    assert standalone_settings(tmp_path).storage_path == tmp_path / "storage"


def test_quotes_and_control_characters_are_refused_by_the_name_of_any_setting() -> None:
    for name in Settings.model_fields:
        for value in ('"s3cret"', "'s3cret", "\N{LEFT DOUBLE QUOTATION MARK}s3cret\N{RIGHT DOUBLE QUOTATION MARK}"):
            with pytest.raises(ValueError, match=f"^{name.upper()} is not usable: remove the quotes") as refused:
                cleaned({name: value})
            assert "s3cret" not in str(refused.value)
        for character in "\n\0\x1b\x7f\x9f\N{LINE SEPARATOR}\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}":
            with pytest.raises(ValueError, match=f"^{name.upper()} is not usable: its value contains a line break"):
                cleaned({name: f"s3cret{character}s3cret"})
    assert cleaned({"storage_path": "/it's/my \u00e9 folder", "api_port": 0}) == {
        "storage_path": "/it's/my \u00e9 folder",
        "api_port": 0,
    }


def test_such_values_are_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", '"postgres://u:s3cret@db/images"')
    monkeypatch.setenv("RABBITMQ_URL", "amqp://rabbit/\nimages")
    with pytest.raises(ConfigError) as refused:
        load_settings()
    assert str(refused.value) == (
        "DATABASE_URL is not usable: remove the quotes around its value, which are taken for a part of it; "
        "RABBITMQ_URL is not usable: its value contains a line break or another control character: remove it."
    )


def test_every_number_has_an_upper_bound_and_is_finite() -> None:
    assert len(NUMBERS) > 25
    for name, field in NUMBERS.items():
        bounds = [bound.le for bound in field.metadata if isinstance(bound, Le)]
        assert len(bounds) == 1, name
        for value in (f"{bounds[0] + 1}", "1e30", "inf", "nan"):  # type: ignore[operator]  # a number
            with pytest.raises(ConfigError, match=f"{name.upper()}="):
                load_settings(**{name: value})


def test_a_name_one_letter_away_from_a_setting_is_warned_of() -> None:
    near = (
        "DATABASE_ULR",
        "DATABASE_URI",
        "DATABSE_URL",
        "DATABASE_URLS",
        "ATABASE_URL",
        "database_uri",
        "XDATABASE_URL",
    )
    far = ("DATABASE_URL", "database_url", "DB_URL", "PATH", "HOME", "DATABASE_URL_2", "DATABASE", "POSTGRES_USER", "")
    assert misspelled([*near, *far], ["database_url"]) == dict.fromkeys(sorted(near), "DATABASE_URL")
    (doubt,) = doubts(Settings(), {"LEASE_SECOND": "1", "HOSTNAME": "x"})
    assert doubt.startswith("LEASE_SECOND is not a setting, but LEASE_SECONDS is: correct its name")
