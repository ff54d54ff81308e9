"""URLs in responses are usable by clients, whatever the request's headers say."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.asgi import request
from image_service.api.urls import urls_of
from image_service.documents.urls import Urls, version
from image_service.domain.image import Thumbnail

ID = UUID("01900000-0000-7000-8000-000000000001")
THUMBNAIL = Thumbnail(
    output="300x300",
    key="thumbnails/01/x",
    content_type="image/jpeg",
    width=300,
    height=200,
    size_bytes=1,
    sha256="0123456789abcdef" * 4,
)


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("http://localhost:8000", ""),
        ("https://img.example.org", ""),
        ("https://example.org/images-api", "/images-api"),
        ("https://example.org:8443/a/b", "/a/b"),
    ],
)
def test_urls_are_below_the_base(base: str, path: str) -> None:
    urls = Urls(base)
    assert urls.location(ID) == f"{path}/images/{ID}"
    assert urls.original(ID) == f"{base}/images/{ID}/original"
    thumbnails = urls.thumbnails(ID)
    assert thumbnails.plain(THUMBNAIL) == f"{base}/images/{ID}/thumbnails/300x300?v=0123456789abcdef"
    assert thumbnails.explicit(THUMBNAIL) == f"{base}/images/{ID}/thumbnails/300x300.jpg?v=0123456789abcdef"
    location = urls.content_location(ID, "300x300.jpg", THUMBNAIL.sha256)
    assert location == f"{path}/images/{ID}/thumbnails/300x300.jpg?v=0123456789abcdef"


@pytest.mark.parametrize("base", ["http://localhost:8000", "https://example.org/images-api"])
@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, f"before={ID}"),
        ({"limit": "20", "status": "DONE"}, f"limit=20&status=DONE&before={ID}"),
        ({"limit": "a&b=c d/é"}, f"limit=a%26b%3Dc+d%2F%C3%A9&before={ID}"),
        ({"before": "an older one"}, f"before={ID}"),
    ],
)
def test_next_page_keeps_the_query(base: str, query: dict[str, str], text: str) -> None:
    assert Urls(base).after(ID, query) == f"{base}/images?{text}"


def test_different_files_have_different_versions() -> None:
    assert version("a" * 64) == "a" * 16
    assert version("a" * 64) != version("b" * 64)


@pytest.mark.parametrize("host", ["img.example.org", "evil.example", ""])
def test_configured_base_overrides_the_request(host: str) -> None:
    asked = request(headers={"host": host})
    assert urls_of(asked, "https://cdn.example/api").original(ID) == f"https://cdn.example/api/images/{ID}/original"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    ["localhost:8000", "img.example.org", "under_score.example", "127.0.0.1:1", "[::1]", "[2001:db8::1]:8443", "XN--A"],
)
def test_without_a_base_urls_use_the_request_host(scheme: str, host: str) -> None:
    asked = request(headers={"host": host}, scheme=scheme)
    assert urls_of(asked, None).original(ID) == f"{scheme}://{host}/images/{ID}/original"
    assert urls_of(asked, None).location(ID) == f"/images/{ID}"


INVALID_HOSTS = [
    "a b",
    "[",
    "[::1",
    "]",
    "a/b",
    "a@b",
    "user:password@host",
    "a?b",
    "a#b",
    "a\\b",
    'a"><script>',
    "a:b",
    "a:",
    ":80",
    "a:123456",
    "a,b",
    "\xe9.example",
    "[zz]",
    "http://a",
    "a\r\nb",
    "",
]


@pytest.mark.parametrize("host", INVALID_HOSTS)
def test_invalid_host_is_replaced_by_the_server_address(host: str) -> None:
    assert urls_of(request(headers={"host": host}), None).original(ID) == f"http://192.0.2.1:8000/images/{ID}/original"


@given(host=st.text(st.characters(max_codepoint=255), max_size=30))
def test_host_cannot_change_the_path_or_scheme(host: str) -> None:
    address = urls_of(request(headers={"host": host}), None).original(ID)
    start, end = "http://", f"/images/{ID}/original"
    assert address.startswith(start)
    assert address.endswith(end)
    authority = address.removeprefix(start).removesuffix(end)
    assert authority in {host, "192.0.2.1:8000"}
    assert authority.isascii()
    assert not set(authority) & set("/?#@\\ \"'<>\r\n")


@pytest.mark.parametrize(
    ("server", "base"),
    [
        (("192.0.2.1", 8000), "http://192.0.2.1:8000"),
        (("::1", 8000), "http://[::1]:8000"),
        (None, "http://localhost"),
    ],
)
def test_without_a_host_the_server_address_is_used(server: tuple[str, int | None] | None, base: str) -> None:
    assert urls_of(request(server=server), None).original(ID) == f"{base}/images/{ID}/original"


@pytest.mark.parametrize("query", [b"\xff", b"a=%ff", b"?#&&="])
def test_malformed_query_is_ignored(query: bytes) -> None:
    asked = request(headers={"host": "a"}, query_string=query)
    assert urls_of(asked, None).original(ID) == f"http://a/images/{ID}/original"
