"""Optional outputs of a standalone service follow, and a back-fill makes what a changed recipe changes."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from harness.images import encoded, gradient
from harness.processes import ProcessGroup
from harness.service import PROGRAM, Standalone, client, done, measured, status, upload
from harness.waiting import eventually

PHOTO = encoded(gradient(1600, 1200), "JPEG")
RECIPES = """
[recipes.default]
[[recipes.default.presets]]
name = "small"
width = 200
height = 200
formats = ["jpeg"]
quality = {{ jpeg = {quality} }}
[[recipes.default.presets]]
name = "large"
width = 800
height = 800
formats = ["jpeg"]
optional = true
"""


async def with_outputs(api: httpx.AsyncClient, image_id: str, *names: str) -> dict[str, Any]:
    """Wait until the image has these outputs, and no others."""

    async def has_them() -> bool:
        return set((await status(api, image_id))["thumbnails"]) == set(names)

    await eventually(has_them, timeout=60)
    return await status(api, image_id)


async def digests(api: httpx.AsyncClient, image: dict[str, Any]) -> dict[str, bytes]:
    return {name: (await api.get(url)).content for name, url in image["thumbnails"].items()}


async def test_optional_outputs_follow_and_a_backfill_makes_only_what_changed(tmp_path: Path) -> None:
    file = tmp_path / "recipes.toml"
    file.write_text(RECIPES.format(quality=80))
    settings = {**measured(), "RECIPES_FILE": str(file), "RECONCILE_INTERVAL": "0.2"}
    with Standalone(tmp_path, settings) as service:
        async with client(service.url) as api:
            image_id = (await upload(api, PHOTO))["id"]
            assert "small" in (await done(api, image_id))["thumbnails"]
            before = await digests(api, await with_outputs(api, image_id, "small", "large"))
    file.write_text(RECIPES.format(quality=40))
    with Standalone(tmp_path, settings) as service:
        group = ProcessGroup(folder=tmp_path / "backfill")
        group.folder.mkdir()
        program = group.spawn(*PROGRAM, "backfill", "--data", str(tmp_path / "data"), env=settings)
        try:
            assert await asyncio.to_thread(program.wait, 60) == 0, group.tail()
        finally:
            group.kill()
        async with client(service.url) as api:
            after = await digests(api, await with_outputs(api, image_id, "small", "large"))
    assert after["large"] == before["large"]
    assert len(after["small"]) < len(before["small"])
