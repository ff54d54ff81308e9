"""Which values of the Idempotency-Key header are accepted."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from harness.asgi import request, scope
from image_service.api.idempotency import KEY_HEADER, idempotency_key_of
from image_service.errors import InvalidIdempotencyKey

PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))
LONGEST = 255


def key_of(value: str) -> str | None:
    return idempotency_key_of(request("POST", "/images", {KEY_HEADER: value}))


def key_of_raw(*values: bytes) -> str | None:
    """The key of header values as bytes, as the server passes them on from any client."""
    headers = [(KEY_HEADER.lower().encode(), value) for value in values]
    return idempotency_key_of(Request({**scope("POST", "/images"), "headers": headers}))


def test_request_without_a_key_has_none() -> None:
    assert idempotency_key_of(request("POST", "/images")) is None


@pytest.mark.parametrize(
    "key",
    [
        "8e03978e-40d5-43dd-bc93-6894a57f9324",
        "x",
        "0",
        PRINTABLE.strip(),
        "two words",
        "a,b",
        "k" * LONGEST,
        '"',
        'a"b',
        '"half quoted',
        "'single'",
    ],
)
def test_bare_key_is_returned_unchanged(key: str) -> None:
    assert key_of(key) == key


@pytest.mark.parametrize("key", ["8e03978e-40d5", "x", "two words", "k" * LONGEST, '"', "a,b"])
def test_quotes_around_a_key_are_removed(key: str) -> None:
    assert key_of(f'"{key}"') == key


def test_whitespace_around_a_key_is_removed() -> None:
    assert key_of(" \tkey ") == key_of('  "key"\t') == "key"


@pytest.mark.parametrize(
    "value",
    ["", " ", '""', '" "', '" key"', '"key "', "k" * (LONGEST + 1), '"' + "k" * (LONGEST + 1) + '"'],
)
def test_empty_or_too_long_key_is_refused(value: str) -> None:
    with pytest.raises(InvalidIdempotencyKey):
        key_of(value)


@pytest.mark.parametrize(
    "value", [b"caf\xe9", "späť".encode(), b"a\tb", b"a\0b", b"\x1b[0m", b"a\x7fb", b"a\nb", b"\xa0key"]
)
def test_key_that_is_not_printable_ascii_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidIdempotencyKey):
        key_of_raw(value)


@pytest.mark.parametrize("values", [(b"a", b"b"), (b"a", b"a"), (b"", b"a"), (b"a", b"b", b"c")])
def test_several_keys_are_refused(values: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidIdempotencyKey, match=r"^The request has more than one Idempotency-Key\. Send one\.$"):
        key_of_raw(*values)


@given(value=st.binary(max_size=300))
def test_any_accepted_key_is_storable(value: bytes) -> None:
    try:
        key = key_of_raw(value)
    except InvalidIdempotencyKey:
        return
    assert key is not None
    assert 1 <= len(key) <= LONGEST
    assert set(key) <= set(PRINTABLE)
    assert key == key.strip(string.whitespace)
