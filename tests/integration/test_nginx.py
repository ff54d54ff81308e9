"""Thumbnails through nginx: as the example of docs/scaling.md caches them, and through one that keeps everything."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from harness.accept import BROWSERS
from harness.api import Api, accepted, api_on
from harness.nginx import nginx, with_cache
from harness.outputs import HERO_FILES, RECIPES, content_of, finish_with, thumbnail
from image_service.api.server import serve

EVERYTHING: Final = """
    location ~ /thumbnails/ {
        proxy_cache thumbnails;
        proxy_cache_valid 200 1h;
        proxy_ignore_headers Cache-Control;
        add_header X-Cache $upstream_cache_status;
        proxy_pass http://images;
        proxy_set_header Host $host;
    }
"""
"""A cache that keeps negotiated responses too, which the service asks it not to: only ``Vary`` tells them apart."""


@dataclass(frozen=True)
class Cached:
    """The service behind nginx, with an image whose recipe negotiates."""

    client: httpx.AsyncClient
    api: Api
    image_id: str

    async def get(self, name: str, accept: str | None = "*/*", **headers: str) -> httpx.Response:
        request = self.client.build_request("GET", f"/images/{self.image_id}/thumbnails/{name}", headers=headers)
        del request.headers["accept"]
        if accept is not None:
            request.headers["accept"] = accept
        return await self.client.send(request)


@asynccontextmanager
async def cached(database_url: str, folder: Path, location: str | None = None) -> AsyncIterator[Cached]:
    async with api_on(database_url, folder, recipes=RECIPES) as api:
        image_id = await accepted(api, recipe="hero")
        await finish_with(api, image_id)
        listener = socket.create_server(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop, started = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(serve(api.app, listener, stop, drain_timeout=5, started=started.set))
        await started.wait()
        try:
            (folder / "nginx").mkdir()
            with nginx(address, with_cache(location), folder / "nginx") as url:
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
                    yield Cached(client, api, image_id)
        finally:
            stop.set()
            await serving


def version(name: str) -> str:
    return thumbnail(name, HERO_FILES[name]).sha256[:16]


def served(named: set[str]) -> str:
    """The output that a client gets: AVIF is the smallest, then WebP."""
    return next((f"hero.{kind}" for kind in ("avif", "webp") if kind in named), "hero")


async def test_explicit_urls_are_cached_for_every_client(sqlite_url: str, tmp_path: Path) -> None:
    async with cached(sqlite_url, tmp_path) as front:
        for name in ("hero.avif", "hero@2x.webp"):
            content = content_of(name, HERO_FILES[name][2])
            seen = []
            for accept, _ in BROWSERS.values():
                answer = await front.get(f"{name}?v={version(name)}", accept)
                assert answer.content == content
                seen.append(answer.headers["x-cache"])
            assert seen == ["MISS", *["HIT"] * (len(BROWSERS) - 1)]
            url = f"{name}?v={version(name)}"
            etag = (await front.get(url)).headers["etag"]
            assert (await front.get(url, **{"If-None-Match": etag})).status_code == 304
            piece = await front.get(url, Range="bytes=0-3")
            assert (piece.status_code, piece.content) == (206, content[:4])


async def test_explicit_url_without_its_version_is_not_kept(sqlite_url: str, tmp_path: Path) -> None:
    async with cached(sqlite_url, tmp_path) as front:
        assert [(await front.get("hero.avif")).headers["x-cache"] for _ in range(2)] == ["MISS", "MISS"]


async def test_negotiated_urls_reach_the_service(sqlite_url: str, tmp_path: Path) -> None:
    async with cached(sqlite_url, tmp_path) as front:
        for accept, named in BROWSERS.values():
            for name in ("hero", f"hero?v={version('hero')}"):
                answer = await front.get(name, accept)
                expected = served(named)
                assert answer.content == content_of(expected, HERO_FILES[expected][2])
                assert "x-cache" not in answer.headers
                assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Accept", "public, no-cache")
                same = await front.get(name, accept, **{"If-None-Match": answer.headers["etag"]})
                assert (same.status_code, same.headers["vary"]) == (304, "Accept")


async def test_cache_that_keeps_negotiated_responses_tells_them_apart(sqlite_url: str, tmp_path: Path) -> None:
    async with cached(sqlite_url, tmp_path, EVERYTHING) as front:
        for expected_state in ("MISS", "HIT"):
            asked = set()
            for accept, named in BROWSERS.values():
                answer = await front.get("hero", accept)
                expected = served(named)
                assert answer.content == content_of(expected, HERO_FILES[expected][2])
                state = "HIT" if accept in asked else expected_state
                assert (accept, answer.headers["x-cache"]) == (accept, state)
                asked.add(accept)
