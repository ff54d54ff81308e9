"""The status of an image, and the URLs in it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from harness.api import BASE, JPEG, PNG, SIZES, UNKNOWN, Api, accepted, api_on, fail, finish, is_recent, problem
from harness.fakes import TRAITS


async def test_status_of_an_image_in_every_state(api: Api) -> None:
    image_id = await accepted(api, JPEG)

    async def status() -> dict[str, Any]:
        answer = await api.client.get(f"/images/{image_id}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body: dict[str, Any] = answer.json()
        assert is_recent(body.pop("created_at"))
        assert is_recent(body.pop("updated_at"))
        return body

    processing = {
        "id": image_id,
        "status": "PROCESSING",
        "original_url": f"{BASE}/images/{image_id}/original",
        "thumbnails": {},
        "content_type": "image/jpeg",
        "size_bytes": len(JPEG),
        "sha256": hashlib.sha256(JPEG).hexdigest(),
        "width": 60,
        "height": 40,
        "placeholder": None,
        "dominant_colour": None,
        "metadata_removed": None,
        "recipe": "default",
        "outputs": [],
        "srcset": None,
        "picture": None,
        "finished_at": None,
        "original_removed_at": None,
        "error": None,
    }
    assert await status() == processing
    contents = await finish(api, image_id)
    done = await status()
    assert is_recent(done.pop("finished_at"))
    markup = [done.pop("srcset"), done.pop("picture")]
    assert all(f"{BASE}/images/{image_id}/thumbnails/1200x1200.jpg?v=" in each for each in markup)
    for name in ("finished_at", "srcset", "picture"):
        del processing[name]
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert done == processing | {
        "status": "DONE",
        "width": 40,
        "height": 60,
        "placeholder": TRAITS.placeholder,
        "dominant_colour": "#8b5a2b",
        "metadata_removed": ["exif", "gps"],
        "thumbnails": {
            name: f"{BASE}/images/{image_id}/thumbnails/{name}?v={digest[:16]}" for name, digest in digests.items()
        },
        "outputs": [
            {
                "preset": name,
                "dpr": 1,
                "format": "jpeg",
                "content_type": "image/jpeg",
                "width": SIZES[name][0],
                "height": SIZES[name][1],
                "bytes": len(contents[name]),
                "sha256": digest,
                "url": f"{BASE}/images/{image_id}/thumbnails/{name}.jpg?v={digest[:16]}",
                "status": "ready",
            }
            for name, digest in digests.items()
        ],
    }


async def test_status_of_a_failed_image(api: Api) -> None:
    image_id = await accepted(api)
    await fail(api, image_id)
    body = (await api.client.get(f"/images/{image_id}")).json()
    assert body["status"] == "ERROR"
    assert body["error"] == {"code": "corrupt-image", "detail": "Export it again."}
    assert body["thumbnails"] == {}
    assert is_recent(body["finished_at"])


@pytest.mark.parametrize(
    ("settings", "headers", "base", "path"),
    [
        ({}, {}, BASE, ""),
        ({}, {"Host": "img.example.org"}, "http://img.example.org", ""),
        ({}, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "img.example.org"}, "https://img.example.org", ""),
        ({"trusted_proxies": "10.0.0.0/8"}, {"X-Forwarded-Host": "evil.example"}, BASE, ""),
        ({"public_url": "https://x.example/api/"}, {"X-Forwarded-Host": "b"}, "https://x.example/api", "/api"),
    ],
)
async def test_urls_use_the_public_address(
    sqlite_url: str, tmp_path: Path, settings: dict[str, Any], headers: dict[str, str], base: str, path: str
) -> None:
    async with api_on(sqlite_url, tmp_path, **settings) as api:
        answer = await api.client.post("/images", files={"file": PNG}, headers=headers)
        assert answer.status_code == 202, answer.text
        image_id = answer.json()["id"]
        await finish(api, image_id)
        image = (await api.client.get(f"/images/{image_id}", headers=headers)).json()
    assert answer.headers["location"] == f"{path}/images/{image_id}"
    assert image["original_url"] == f"{base}/images/{image_id}/original"
    assert all(url.startswith(f"{base}/images/{image_id}/thumbnails/") for url in image["thumbnails"].values())


@pytest.mark.parametrize("file", ["", "/original", "/thumbnails/100x100"])
async def test_unknown_image_returns_404(api: Api, file: str) -> None:
    problem(await api.client.get(f"/images/{UNKNOWN}{file}"), 404, "image-not-found")


@pytest.mark.parametrize("image_id", ["1", "x" * 1000, f"{UNKNOWN}0", "%00", "späť", "'; drop table images"])
@pytest.mark.parametrize("file", ["", "/original", "/thumbnails/100x100"])
async def test_invalid_id_returns_422(small_api: Api, image_id: str, file: str) -> None:
    document = problem(await small_api.client.get(f"/images/{image_id}{file}"), 422, "invalid-request")
    assert document["detail"].startswith("The request is not valid: image_id: ")
