"""How many uploads are taken in at once, and what may be an idempotency key."""

import asyncio
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from harness.asgi import request, scope
from image_service.api.admission import KEY_HEADER, Admission, idempotency_key_of
from image_service.errors import InvalidIdempotencyKey, TooManyUploads

PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))
LONGEST = 255


def key_of(value: str) -> str | None:
    return idempotency_key_of(request("POST", "/images", {KEY_HEADER: value}))


def key_of_raw(*values: bytes) -> str | None:
    """As the server would pass values on that no well-behaved client could send."""
    headers = [(KEY_HEADER.lower().encode(), value) for value in values]
    return idempotency_key_of(Request({**scope("POST", "/images"), "headers": headers}))


def test_there_need_not_be_a_key() -> None:
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
def test_a_key_is_taken_as_it_is(key: str) -> None:
    assert key_of(key) == key


@pytest.mark.parametrize("key", ["8e03978e-40d5", "x", "two words", "k" * LONGEST, '"', "a,b"])
def test_quotes_around_a_key_make_no_difference(key: str) -> None:
    assert key_of(f'"{key}"') == key


def test_spaces_around_a_key_make_no_difference() -> None:
    assert key_of(" \tkey ") == key_of('  "key"\t') == "key"


@pytest.mark.parametrize(
    "value",
    ["", " ", '""', '" "', '" key"', '"key "', "k" * (LONGEST + 1), '"' + "k" * (LONGEST + 1) + '"'],
)
def test_what_is_empty_or_too_long_is_no_key(value: str) -> None:
    with pytest.raises(InvalidIdempotencyKey):
        key_of(value)


@pytest.mark.parametrize(
    "value", [b"caf\xe9", "späť".encode(), b"a\tb", b"a\0b", b"\x1b[0m", b"a\x7fb", b"a\nb", b"\xa0key"]
)
def test_what_is_not_printable_ascii_is_no_key(value: bytes) -> None:
    with pytest.raises(InvalidIdempotencyKey):
        key_of_raw(value)


@pytest.mark.parametrize("values", [(b"a", b"b"), (b"a", b"a"), (b"", b"a"), (b"a", b"b", b"c")])
def test_two_keys_are_none(values: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidIdempotencyKey, match=r"^The request has more than one Idempotency-Key\. Send one\.$"):
        key_of_raw(*values)


@given(value=st.binary(max_size=300))
def test_a_key_is_always_something_that_can_be_kept(value: bytes) -> None:
    try:
        key = key_of_raw(value)
    except InvalidIdempotencyKey:
        return
    assert key is not None
    assert 1 <= len(key) <= LONGEST
    assert set(key) <= set(PRINTABLE)
    assert key == key.strip(string.whitespace)


def test_as_many_are_admitted_as_the_limit_says() -> None:
    admission = Admission(2)
    with admission.one(), admission.one():
        with pytest.raises(TooManyUploads), admission.one():
            pytest.fail("a third one was admitted")
        # The one that was refused has not given back a place that it never had.
        with pytest.raises(TooManyUploads), admission.one():
            pytest.fail("a third one was admitted")
    with admission.one(), admission.one():
        pass


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError])
def test_a_place_is_given_back_however_the_upload_ends(failure: type[BaseException]) -> None:
    admission = Admission(1)
    for _ in range(3):
        with pytest.raises(failure), admission.one():
            raise failure
    with admission.one():
        pass
