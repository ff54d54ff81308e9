"""Originals and thumbnails as the API serves them."""

import hashlib

import pytest

from harness.api import JPEG, SIZES, Api, accepted, finish, problem


async def test_original_is_served_unchanged_in_every_state(api: Api) -> None:
    image_id = await accepted(api, JPEG)
    answers = [await api.client.get(f"/images/{image_id}/original")]
    await finish(api, image_id)
    answers.append(await api.client.get(f"/images/{image_id}/original"))
    for answer in answers:
        assert answer.status_code == 200
        assert answer.content == JPEG
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["content-length"] == str(len(JPEG))
        assert answer.headers["content-disposition"] == f'attachment; filename="{image_id}.jpg"'
        assert answer.headers["etag"] == f'"{hashlib.sha256(JPEG).hexdigest()}"'
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_thumbnails_are_served_at_the_urls_of_the_status(api: Api) -> None:
    image_id = await accepted(api)
    contents = await finish(api, image_id)
    urls = (await api.client.get(f"/images/{image_id}")).json()["thumbnails"]
    assert list(urls) == list(SIZES)
    for name, url in urls.items():
        answer = await api.client.get(url)
        assert answer.status_code == 200
        assert answer.content == contents[name]
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["content-disposition"] == f'inline; filename="{image_id}-{name}.jpg"'
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("query", ["", "?v=", "?v=0000000000000000", "?v=%ff", "?w=1"])
async def test_thumbnail_url_without_version_requires_revalidation(small_api: Api, query: str) -> None:
    image_id = await accepted(small_api)
    await finish(small_api, image_id)
    answer = await small_api.client.get(f"/images/{image_id}/thumbnails/100x100{query}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, no-cache"


@pytest.mark.parametrize("file", ["original", "thumbnails/300x300"])
async def test_files_support_conditional_requests_ranges_and_head(api: Api, file: str) -> None:
    image_id = await accepted(api)
    await finish(api, image_id)
    url = f"/images/{image_id}/{file}"
    whole = await api.client.get(url)
    same = await api.client.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    piece = await api.client.get(url, headers={"Range": "bytes=-10"})
    assert (piece.status_code, piece.content) == (206, whole.content[-10:])
    other = await api.client.get(url, headers={"If-Match": '"another"'})
    problem(other, 412, "precondition-failed")
    head = await api.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    outside = await api.client.get(url, headers={"Range": f"bytes={len(whole.content)}-"})
    problem(outside, 416, "range-not-satisfiable")


async def test_missing_file_returns_500_with_the_request_id(api: Api) -> None:
    image_id = await accepted(api)
    for path in api.originals:
        path.unlink()
    answer = await api.client.get(f"/images/{image_id}/original", headers={"X-Request-ID": "r-1"})
    problem(answer, 500, "object-missing")
    assert answer.headers["x-request-id"] == "r-1"


@pytest.mark.parametrize("size", ["100x100", "5x5", "%2e%2e", "100x100%00", "späť"])
async def test_missing_thumbnail_returns_404(small_api: Api, size: str) -> None:
    image_id = await accepted(small_api)
    problem(await small_api.client.get(f"/images/{image_id}/thumbnails/{size}"), 404, "thumbnail-not-found")


async def test_unknown_size_of_a_done_image_returns_404(small_api: Api) -> None:
    image_id = await accepted(small_api)
    await finish(small_api, image_id)
    problem(await small_api.client.get(f"/images/{image_id}/thumbnails/5x5"), 404, "thumbnail-not-found")
