"""Conditional requests, ranges and the headers that files are served with (RFC 9110)."""

import os
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from harness.asgi import Answer, Body, request
from image_service.api.caching import PRIVATE_IMMUTABLE, PUBLIC_IMMUTABLE, REVALIDATE, CachePolicy
from image_service.api.files import file_response
from image_service.errors import ObjectMissing, PreconditionFailed, ServiceError, StorageUnavailable
from image_service.services.lookup import StoredFile

CONTENT = b"0123456789"
SHA256 = "9f86d081884c7d65" * 4
ETAG = f'"{SHA256}"'


class FakeSource:
    """Holds one file and reads it in small chunks."""

    def __init__(self, content: bytes = CONTENT, chunk_size: int = 4) -> None:
        self.content = content
        self.chunk_size = chunk_size
        self.reads = 0
        self.presigned_url: str | None = None
        """The URL to redirect clients to, if any."""
        self.fails_at: int | None = None
        self.failure: type[ServiceError] = StorageUnavailable

    @property
    def file(self) -> StoredFile:
        return StoredFile(key="k", name="a.png", content_type="image/png", size_bytes=len(self.content), sha256=SHA256)

    async def presign(self, file: StoredFile, method: str) -> str | None:
        assert file == self.file
        return self.presigned_url and f"{self.presigned_url}?{method}"

    async def read(self, file: StoredFile, start: int, length: int | None) -> AsyncIterator[bytes]:
        assert file == self.file
        assert length is not None
        for at in range(start, start + length, self.chunk_size):
            if self.fails_at is not None and at >= self.fails_at:
                raise self.failure
            self.reads += 1
            yield self.content[at : min(at + self.chunk_size, start + length)]


async def get(
    source: FakeSource | None = None, method: str = "GET", *, attachment: bool = False, **headers: str
) -> Answer:
    return await ask(source or FakeSource(), method, headers, attachment=attachment)


async def ask(
    source: FakeSource,
    method: str,
    headers: dict[str, str],
    *,
    cache: CachePolicy = REVALIDATE,
    attachment: bool = False,
) -> Answer:
    asked = request(method, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = await file_response(asked, source.file, source, cache=cache, attachment=attachment)
    answer = Answer()
    await response(asked.scope, Body([], then="silence"), answer.send)
    return answer


async def test_whole_file_is_served_with_its_headers() -> None:
    answer = await get()
    assert answer.status == 200
    assert answer.body == CONTENT
    assert dict(answer.headers) == {
        "etag": ETAG,
        "cache-control": "public, no-cache",
        "accept-ranges": "bytes",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "content-disposition": 'inline; filename="a.png"',
        "content-length": "10",
        "content-type": "image/png",
    }


async def test_attachment_has_a_file_name() -> None:
    assert (await get(attachment=True)).headers["content-disposition"] == 'attachment; filename="a.png"'


@pytest.mark.parametrize(
    ("cache", "header"),
    [
        (PRIVATE_IMMUTABLE, "private, max-age=31536000, immutable"),
        (PUBLIC_IMMUTABLE, "public, max-age=31536000, immutable"),
        (REVALIDATE, "public, no-cache"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"if_none_match": "*"}, {"range": "bytes=0-1"}])
async def test_every_response_has_cache_control(cache: CachePolicy, header: str, headers: dict[str, str]) -> None:
    assert (await ask(FakeSource(), "GET", headers, cache=cache)).headers["cache-control"] == header


async def test_head_returns_the_headers_of_get_without_a_body() -> None:
    source = FakeSource()
    answer = await get(source, "HEAD")
    assert answer.status == 200
    assert answer.body == b""
    assert answer.headers == (await get()).headers
    assert source.reads == 0


async def test_head_ignores_range() -> None:
    answer = await get(method="HEAD", range="bytes=0-1")
    assert answer.status == 200
    assert answer.headers["content-length"] == "10"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "condition",
    [ETAG, f"W/{ETAG}", "*", " * ", f'"x", {ETAG}', f'W/"x",W/{ETAG} , "y"', f"  {ETAG}  "],
)
async def test_matching_if_none_match_returns_304(method: str, condition: str) -> None:
    source = FakeSource()
    answer = await get(source, method, if_none_match=condition)
    assert answer.status == 304
    assert answer.body == b""
    assert answer.headers["etag"] == ETAG
    assert "content-length" not in answer.headers
    assert "content-type" not in answer.headers
    assert source.reads == 0


@pytest.mark.parametrize(
    "condition", ["", '"x"', SHA256, f'"{SHA256[:16]}"', f'"x{SHA256}"', 'W/"x", "y"', f"w/{ETAG}"]
)
async def test_other_if_none_match_returns_the_file(condition: str) -> None:
    answer = await get(if_none_match=condition)
    assert answer.status == 200
    assert answer.body == CONTENT


async def ask_with_lines(*lines: tuple[str, str], method: str = "GET") -> Answer:
    """Asks with headers that may be sent in several lines."""
    source = FakeSource()
    asked = request(method)
    asked.scope["headers"] = [(name.encode(), value.encode()) for name, value in lines]
    response = await file_response(asked, source.file, source, cache=REVALIDATE, attachment=False)
    answer = Answer()
    await response(asked.scope, Body([], then="silence"), answer.send)
    return answer


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_every_line_of_if_none_match_counts(at: int) -> None:
    lines = [("if-none-match", '"x"'), ("if-none-match", 'W/"y", "z"')]
    lines.insert(at, ("if-none-match", ETAG))
    assert (await ask_with_lines(*lines)).status == 304
    assert (await ask_with_lines(*(line for line in lines if line[1] != ETAG))).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("condition", [ETAG, "*", " * ", f'"x", {ETAG}', f'W/"x",{ETAG} , "y"'])
async def test_matching_if_match_returns_the_file(method: str, condition: str) -> None:
    assert (await get(method=method, if_match=condition)).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("condition", ["", '"x"', f"W/{ETAG}", SHA256, '"x", "y"', '*, "x"'])
@pytest.mark.parametrize("other", [{}, {"if_none_match": ETAG}, {"range": "bytes=0-1"}])
async def test_other_if_match_precedes_everything_and_returns_412(
    method: str, condition: str, other: dict[str, str]
) -> None:
    source = FakeSource()
    source.presigned_url = "https://storage.example/k"
    with pytest.raises(PreconditionFailed):
        await ask(source, method, {"if_match": condition, **other})
    assert source.reads == 0


async def test_every_line_of_if_match_counts() -> None:
    assert (await ask_with_lines(("if-match", '"x"'), ("if-match", ETAG))).status == 200
    with pytest.raises(PreconditionFailed):
        await ask_with_lines(("if-match", '"x"'), ("if-match", '"y"'))


async def test_if_none_match_precedes_range() -> None:
    assert (await get(if_none_match=ETAG, range="bytes=0-1")).status == 304


@pytest.mark.parametrize(
    ("requested", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=2-5", 2, 5),
        ("bytes=0-9", 0, 9),
        ("bytes=9-9", 9, 9),
        ("bytes=5-100", 5, 9),
        ("bytes=0-999999999999999999", 0, 9),
        ("bytes=0-", 0, 9),
        ("bytes=9-", 9, 9),
        ("bytes=-1", 9, 9),
        ("bytes=-10", 0, 9),
        ("bytes=-11", 0, 9),
        ("bytes=-999999999999999999", 0, 9),
        ("bytes= 2 - 5", 2, 5),
    ],
)
async def test_single_range_is_served(requested: str, first: int, last: int) -> None:
    answer = await get(range=requested)
    assert answer.status == 206
    assert answer.body == CONTENT[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/10"
    assert answer.headers["content-length"] == str(last + 1 - first)
    assert answer.headers["etag"] == ETAG
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "requested", ["bytes=10-", "bytes=10-10", "bytes=11-20", "bytes=-0", "bytes=999999999999999999-"]
)
async def test_range_outside_the_file_returns_416(requested: str) -> None:
    source = FakeSource()
    answer = await get(source, range=requested)
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */10"
    assert answer.headers["content-type"] == "application/problem+json"
    assert b'"code":"range-not-satisfiable"' in answer.body
    assert source.reads == 0


@pytest.mark.parametrize(
    "requested",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=1",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=0-1,4-5",
        "bytes=0-1,",
        "bytes=²-",
        "bytes=0x1-2",
        "bytes=9999999999999999999-",
        "items=0-1",
        "0-1",
    ],
)
async def test_malformed_or_multiple_ranges_are_ignored(requested: str) -> None:
    answer = await get(range=requested)
    assert answer.status == 200
    assert answer.body == CONTENT
    assert "content-range" not in answer.headers


async def test_matching_if_range_serves_the_range() -> None:
    answer = await get(range="bytes=0-1", if_range=ETAG)
    assert answer.status == 206
    assert answer.body == b"01"


@pytest.mark.parametrize("version", ['"x"', f"W/{ETAG}", SHA256, "Wed, 25 Nov 2026 07:30:00 GMT", ""])
@pytest.mark.parametrize("requested", ["bytes=0-1", "bytes=10-"])
async def test_other_if_range_serves_the_whole_file(version: str, requested: str) -> None:
    answer = await get(range=requested, if_range=version)
    assert answer.status == 200
    assert answer.body == CONTENT


async def test_large_file_is_streamed() -> None:
    source = FakeSource(os.urandom(1024 * 1024), chunk_size=256 * 1024)
    asked = request()
    response = await file_response(asked, source.file, source, cache=REVALIDATE, attachment=False)
    reads_by_then: list[int] = []

    class Watched(Answer):
        async def send(self, message: Message) -> None:
            reads_by_then.append(source.reads)
            await super().send(message)

    answer = Watched()
    await response(asked.scope, Body([], then="silence"), answer.send)
    assert answer.body == source.content
    assert answer.headers["content-length"] == str(len(source.content))
    assert reads_by_then == [1, 1, 2, 3, 4, 4]


async def test_large_range_is_streamed() -> None:
    source = FakeSource(os.urandom(1024 * 1024), chunk_size=100_000)
    answer = await get(source, range="bytes=1000-900999")
    assert answer.status == 206
    assert answer.body == source.content[1000:901_000]
    assert max(map(len, answer.chunks)) == 100_000


@pytest.mark.parametrize("size", [10, 1024 * 1024])
async def test_missing_file_raises_before_the_response_starts(size: int) -> None:
    source = FakeSource(bytes(size))
    source.fails_at = 0
    source.failure = ObjectMissing
    with pytest.raises(ObjectMissing):
        await file_response(request(), source.file, source, cache=REVALIDATE, attachment=False)


async def test_read_error_of_a_small_file_raises_before_the_response_starts() -> None:
    source = FakeSource()
    source.fails_at = 8
    with pytest.raises(StorageUnavailable):
        await file_response(request(), source.file, source, cache=REVALIDATE, attachment=False)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("cache", "header"),
    [
        (PRIVATE_IMMUTABLE, "private, max-age=240"),
        (PUBLIC_IMMUTABLE, "public, max-age=240"),
        (REVALIDATE, "public, no-cache"),
    ],
)
async def test_presigned_file_is_redirected_to(method: str, cache: CachePolicy, header: str) -> None:
    source = FakeSource()
    source.presigned_url = "https://storage.example/k"
    answer = await ask(source, method, {"range": "bytes=0-1"}, cache=cache)
    assert answer.status == 307
    assert answer.headers["location"] == f"https://storage.example/k?{method}"
    assert answer.headers["cache-control"] == header
    assert (answer.body, source.reads) == (b"", 0)


async def test_304_needs_no_presigned_url() -> None:
    source = FakeSource()
    source.presigned_url = "https://storage.example/k"
    assert (await get(source, if_none_match=ETAG)).status == 304
