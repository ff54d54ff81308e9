"""Conditional requests, ranges and the headers that files are served with (RFC 9110)."""

import os
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from harness.asgi import Answer, Body, request
from image_service.api.files import PRIVATE_FOR_EVER, PUBLIC_FOR_EVER, REVALIDATE, file_response
from image_service.errors import ObjectMissing, ServiceError, StorageUnavailable
from image_service.services.lookup import StoredFile

CONTENT = b"0123456789"
SHA256 = "9f86d081884c7d65" * 4
ETAG = f'"{SHA256}"'


class Shelf:
    """Holds one file, and reads it in small pieces."""

    def __init__(self, content: bytes = CONTENT, piece: int = 4) -> None:
        self.content = content
        self.piece = piece
        self.reads = 0
        self.address: str | None = None
        """Where the file is to be had, if not here."""
        self.fails_at: int | None = None
        self.failure: type[ServiceError] = StorageUnavailable

    @property
    def file(self) -> StoredFile:
        return StoredFile(key="k", name="a.png", content_type="image/png", size_bytes=len(self.content), sha256=SHA256)

    async def presign(self, file: StoredFile, method: str) -> str | None:
        assert file == self.file
        return self.address and f"{self.address}?{method}"

    async def read(self, file: StoredFile, start: int, length: int | None) -> AsyncIterator[bytes]:
        assert file == self.file
        assert length is not None
        for at in range(start, start + length, self.piece):
            if self.fails_at is not None and at >= self.fails_at:
                raise self.failure
            self.reads += 1
            yield self.content[at : min(at + self.piece, start + length)]


async def get(shelf: Shelf | None = None, method: str = "GET", *, attachment: bool = False, **headers: str) -> Answer:
    return await ask(shelf or Shelf(), method, headers, attachment=attachment)


async def ask(
    shelf: Shelf, method: str, headers: dict[str, str], *, cache: str = REVALIDATE, attachment: bool = False
) -> Answer:
    asked = request(method, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = await file_response(
        asked, shelf.file, read=shelf.read, presign=shelf.presign, cache=cache, attachment=attachment
    )
    answer = Answer()
    await response(asked.scope, Body([], then="silence"), answer.send)
    return answer


async def test_the_whole_file() -> None:
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


async def test_an_attachment_is_saved_under_its_name() -> None:
    assert (await get(attachment=True)).headers["content-disposition"] == 'attachment; filename="a.png"'


@pytest.mark.parametrize(
    ("cache", "header"),
    [
        (PRIVATE_FOR_EVER, "private, max-age=31536000, immutable"),
        (PUBLIC_FOR_EVER, "public, max-age=31536000, immutable"),
        (REVALIDATE, "public, no-cache"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"if_none_match": "*"}, {"range": "bytes=0-1"}])
async def test_every_answer_says_how_to_cache(cache: str, header: str, headers: dict[str, str]) -> None:
    assert (await ask(Shelf(), "GET", headers, cache=cache)).headers["cache-control"] == header


async def test_head_is_get_without_the_body() -> None:
    shelf = Shelf()
    answer = await get(shelf, "HEAD")
    assert answer.status == 200
    assert answer.body == b""
    assert answer.headers == (await get()).headers
    assert shelf.reads == 0


async def test_head_of_a_range_tells_of_the_whole_file() -> None:
    answer = await get(method="HEAD", range="bytes=0-1")
    assert answer.status == 200
    assert answer.headers["content-length"] == "10"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "condition",
    [ETAG, f"W/{ETAG}", "*", " * ", f'"x", {ETAG}', f'W/"x",W/{ETAG} , "y"', f"  {ETAG}  "],
)
async def test_a_copy_that_is_up_to_date_is_not_sent_again(method: str, condition: str) -> None:
    shelf = Shelf()
    answer = await get(shelf, method, if_none_match=condition)
    assert answer.status == 304
    assert answer.body == b""
    assert answer.headers["etag"] == ETAG
    assert "content-length" not in answer.headers
    assert "content-type" not in answer.headers
    assert shelf.reads == 0


@pytest.mark.parametrize(
    "condition", ["", '"x"', SHA256, f'"{SHA256[:16]}"', f'"x{SHA256}"', 'W/"x", "y"', f"w/{ETAG}"]
)
async def test_any_other_copy_is_replaced(condition: str) -> None:
    answer = await get(if_none_match=condition)
    assert answer.status == 200
    assert answer.body == CONTENT


async def test_a_copy_that_is_up_to_date_comes_before_a_range() -> None:
    assert (await get(if_none_match=ETAG, range="bytes=0-1")).status == 304


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
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
async def test_a_single_range(wanted: str, first: int, last: int) -> None:
    answer = await get(range=wanted)
    assert answer.status == 206
    assert answer.body == CONTENT[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/10"
    assert answer.headers["content-length"] == str(last + 1 - first)
    assert answer.headers["etag"] == ETAG
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-10", "bytes=11-20", "bytes=-0", "bytes=999999999999999999-"])
async def test_a_range_outside_the_file(wanted: str) -> None:
    shelf = Shelf()
    answer = await get(shelf, range=wanted)
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */10"
    assert answer.headers["content-type"] == "application/problem+json"
    assert b'"code":"range-not-satisfiable"' in answer.body
    assert shelf.reads == 0


@pytest.mark.parametrize(
    "wanted",
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
async def test_ranges_that_are_malformed_or_several_are_ignored(wanted: str) -> None:
    answer = await get(range=wanted)
    assert answer.status == 200
    assert answer.body == CONTENT
    assert "content-range" not in answer.headers


async def test_a_range_of_the_version_that_is_here() -> None:
    answer = await get(range="bytes=0-1", if_range=ETAG)
    assert answer.status == 206
    assert answer.body == b"01"


@pytest.mark.parametrize("version", ['"x"', f"W/{ETAG}", SHA256, "Wed, 25 Nov 2026 07:30:00 GMT", ""])
@pytest.mark.parametrize("wanted", ["bytes=0-1", "bytes=10-"])
async def test_a_range_of_any_other_version_gets_the_whole_file(version: str, wanted: str) -> None:
    answer = await get(range=wanted, if_range=version)
    assert answer.status == 200
    assert answer.body == CONTENT


async def test_a_large_file_is_passed_on_piece_by_piece() -> None:
    shelf = Shelf(os.urandom(1024 * 1024), piece=256 * 1024)
    asked = request()
    response = await file_response(
        asked, shelf.file, read=shelf.read, presign=shelf.presign, cache=REVALIDATE, attachment=False
    )
    reads_by_then: list[int] = []

    class Watched(Answer):
        async def send(self, message: Message) -> None:
            reads_by_then.append(shelf.reads)
            await super().send(message)

    answer = Watched()
    await response(asked.scope, Body([], then="silence"), answer.send)
    assert answer.body == shelf.content
    assert answer.headers["content-length"] == str(len(shelf.content))
    assert reads_by_then == [1, 1, 2, 3, 4, 4]


async def test_a_large_range_is_passed_on_piece_by_piece() -> None:
    shelf = Shelf(os.urandom(1024 * 1024), piece=100_000)
    answer = await get(shelf, range="bytes=1000-900999")
    assert answer.status == 206
    assert answer.body == shelf.content[1000:901_000]
    assert max(len(piece) for piece in answer.pieces) == 100_000


@pytest.mark.parametrize("size", [10, 1024 * 1024])
async def test_a_missing_file_is_an_error_before_anything_is_sent(size: int) -> None:
    shelf = Shelf(bytes(size))
    shelf.fails_at = 0
    shelf.failure = ObjectMissing
    with pytest.raises(ObjectMissing):
        await file_response(
            request(), shelf.file, read=shelf.read, presign=shelf.presign, cache=REVALIDATE, attachment=False
        )


async def test_a_small_file_that_cannot_be_read_to_its_end_is_an_error_before_anything_is_sent() -> None:
    shelf = Shelf()
    shelf.fails_at = 8
    with pytest.raises(StorageUnavailable):
        await file_response(
            request(), shelf.file, read=shelf.read, presign=shelf.presign, cache=REVALIDATE, attachment=False
        )


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("cache", "kept"),
    [
        (PRIVATE_FOR_EVER, "private, max-age=240"),
        (PUBLIC_FOR_EVER, "public, max-age=240"),
        (REVALIDATE, "public, no-cache"),
    ],
)
async def test_a_file_that_is_elsewhere_is_redirected_to(method: str, cache: str, kept: str) -> None:
    shelf = Shelf()
    shelf.address = "https://storage.example/k"
    answer = await ask(shelf, method, {"range": "bytes=0-1"}, cache=cache)
    assert answer.status == 307
    assert answer.headers["location"] == f"https://storage.example/k?{method}"
    assert answer.headers["cache-control"] == kept
    assert (answer.body, shelf.reads) == (b"", 0)


async def test_a_copy_that_is_up_to_date_needs_no_link() -> None:
    shelf = Shelf()
    shelf.address = "https://storage.example/k"
    assert (await get(shelf, if_none_match=ETAG)).status == 304
