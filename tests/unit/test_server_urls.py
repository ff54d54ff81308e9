"""The URLs of database and broker, as hosting providers hand them out."""

from pathlib import Path
from urllib.parse import quote

import pytest

from harness.certificates import Authority
from image_service.config import ConfigError, doubts, load_settings
from image_service.database.connecting import connect_arguments


def database(url: str) -> str:
    return load_settings(database_url=url).database_url.get_secret_value()


def broker(url: str) -> str:
    return load_settings(rabbitmq_url=url).rabbitmq_url.get_secret_value()


def refusal(**setting: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_settings(**setting)
    assert "s3cret" not in str(refused.value)
    return str(refused.value)


def test_urls_of_hosting_providers_are_understood() -> None:
    ours = "postgresql+asyncpg://"
    for given, understood in {
        "postgres://u:s3cret@ec2-1.amazonaws.com:5432/d": f"{ours}u:s3cret@ec2-1.amazonaws.com:5432/d",  # Heroku
        "postgresql://u:s3cret@dpg-x-a.render.com/d": f"{ours}u:s3cret@dpg-x-a.render.com/d",
        "postgres://u:s3cret@aivencloud.com:1/d?sslmode=require": f"{ours}u:s3cret@aivencloud.com:1/d?sslmode=require",
        "postgresql://u:s3cret@ep-a.us.aws.neon.tech/d?sslmode=require&channel_binding=require": (
            f"{ours}u:s3cret@ep-a.us.aws.neon.tech/d?sslmode=require&channel_binding=require"
        ),
        "postgresql://u:s3cret@ep-a-pooler.us.aws.neon.tech/d?sslmode=require": (
            f"{ours}u:s3cret@ep-a-pooler.us.aws.neon.tech/d?sslmode=require&prepared_statement_cache_size=0"
        ),
        "postgres://postgres.p:s3cret@aws-0-eu.pooler.supabase.com:6543/d": (
            f"{ours}postgres.p:s3cret@aws-0-eu.pooler.supabase.com:6543/d?prepared_statement_cache_size=0"
        ),
        "postgres://postgres.p:s3cret@aws-0-eu.pooler.supabase.com:6543/d?pgbouncer=true": (
            f"{ours}postgres.p:s3cret@aws-0-eu.pooler.supabase.com:6543/d?prepared_statement_cache_size=0"
        ),
        "postgres://u:s3cret@x.flycast:5432/d?sslmode=disable": f"{ours}u:s3cret@x.flycast:5432/d?sslmode=disable",
        "postgres://u:s3cret@h/d?ssl=TRUE": f"{ours}u:s3cret@h/d?sslmode=require",
        "postgresql://u:s3cret@h/d?options=endpoint%3Dep-a": f"{ours}u:s3cret@h/d?options=endpoint%3Dep-a",
        "postgresql://u:s3cret@/d?host=a:5432&host=b:5432": f"{ours}u:s3cret@/d?host=a%3A5432&host=b%3A5432",
    }.items():
        assert database(given) == understood
    assert broker("amqps://u:s3cret@h.cloudamqp.com/u") == "amqps://u:s3cret@h.cloudamqp.com/u"
    assert broker("amqps://h/?no_verify_ssl=1&auth_mechanism=external") == "amqps://h/?verify=verify_none&auth=external"


def test_the_adapter_gets_what_the_parameters_say() -> None:
    url, arguments = connect_arguments(
        database("postgres://h/d?sslmode=prefer&sslnegotiation=direct&connect_timeout=9&target_session_attrs=primary")
    )
    assert dict(url.query) == {"target_session_attrs": "primary"}
    assert (arguments["ssl"], arguments["direct_tls"]) == ("prefer", True)
    assert "ssl" not in connect_arguments("postgresql+asyncpg://h/d")[1]
    assert connect_arguments("sqlite+aiosqlite:////d/a?b")[1] == {}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (
            "sslmode=on",
            "its parameter sslmode that is not usable: it must be disable, allow, prefer, require, verify-ca,",
        ),
        ("connect_timeout=10s", "its parameter connect_timeout that is not usable: it must be a number"),
        ("sslmode=", "it must be disable, allow, prefer, require"),
        ("s3cret", "must have parameters of the form ?name=value"),
        (
            "connection_limit=s3cret",
            "a parameter connection_limit that is not understood: remove it; known are application",
        ),
        ("p/s3cret=1", "a parameter that is not understood: remove it"),
        ("ssl=true&sslmode=require", "its parameter sslmode twice: remove one"),
        ("sslmode=verify-ca", "sslmode=verify-ca needs sslrootcert"),
        ("sslrootcert=/ca.pem", "certificates need sslmode=require, verify-ca or verify-full"),
        ("sslmode=require&sslkey=/k", "a key needs its certificate"),
    ],
)
def test_a_parameter_that_is_not_understood_is_refused_by_name(query: str, problem: str) -> None:
    message = refusal(database_url=f"postgres://u:s3cret@h/d?{query}")
    assert message.startswith("DATABASE_URL is not usable: ")
    assert problem in message


def test_parameters_of_the_broker_are_refused_by_name() -> None:
    assert "a parameter ssl_options that is not understood" in refusal(rabbitmq_url="amqps://h/?ssl_options=x")
    assert "must start with amqps:// if its parameter verify" in refusal(rabbitmq_url="amqp://h/?verify=verify_none")


def test_unusable_certificates_are_refused_at_the_start(tmp_path: Path) -> None:
    files = Authority().client("app", tmp_path)
    empty = tmp_path / "empty.pem"
    empty.touch()
    for ca, certificate, key, problem in (
        (
            tmp_path / "none.pem",
            files.certificate,
            files.key,
            "none.pem or its key cannot be read (No such file or directory)",
        ),
        (empty, files.certificate, files.key, "empty.pem is no usable certificate in PEM format"),
        (files.authority, files.certificate, files.authority, "client.pem is no usable certificate in PEM format"),
        (files.authority, files.certificate, tmp_path / "none.key", "client.pem or its key cannot be read"),
    ):
        names = [quote(str(file)) for file in (ca, certificate, key)]
        libpq = "sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}".format(*names)
        assert problem in refusal(database_url=f"postgres://h/d?{libpq}")
        amqp = "cacertfile={}&certfile={}&keyfile={}".format(*names)
        assert problem in refusal(rabbitmq_url=f"amqps://h/?{amqp}")


def test_a_demand_for_channel_binding_is_warned_of_unless_the_server_is_verified() -> None:
    for query, warned in {
        "sslmode=require&channel_binding=require": 1,
        "sslmode=require&channel_binding=prefer": 0,
        "sslmode=verify-full&channel_binding=require": 0,
    }.items():
        assert len(doubts(load_settings(database_url=f"postgres://h/d?{query}"), {})) == warned
