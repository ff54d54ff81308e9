"""The standalone service in one process, as `make run` starts it."""

import asyncio
import hashlib
import io
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from harness.fork_server import PROGRAM
from harness.forked import run
from harness.images import encoded, gradient, noise
from harness.service import (
    FAST_SETTINGS,
    OPEN,
    STOPPING,
    Standalone,
    client,
    done,
    finished,
    measured,
    status,
    upload,
    upload_all,
)
from harness.waiting import eventually

PHOTO = encoded(gradient(1600, 1200), "JPEG")
SMALL = encoded(gradient(64, 48), "JPEG")


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[Standalone]:
    with Standalone(tmp_path, measured()) as service:
        yield service


@pytest.mark.real_start
async def test_upload_becomes_three_thumbnails_and_original_is_unchanged(standalone: Standalone) -> None:
    async with client(standalone.url) as api:
        accepted = await upload(api, PHOTO)
        assert accepted["status"] == "PROCESSING"
        image = await done(api, accepted["id"])
        original = await api.get(image["original_url"])
        thumbnails = {name: await api.get(url) for name, url in image["thumbnails"].items()}
    assert original.content == PHOTO
    assert image["sha256"] == hashlib.sha256(PHOTO).hexdigest()
    sizes = {name: Image.open(io.BytesIO(answer.content)).size for name, answer in thumbnails.items()}
    assert sizes == {"100x100": (100, 75), "300x300": (300, 225), "1200x1200": (1200, 900)}


async def test_printed_address_reports_healthy(standalone: Standalone) -> None:
    async with client(standalone.url) as api:
        report = (await api.get("/health")).json()
    assert report["status"] == "healthy"
    assert report["mode"] == "standalone"
    assert f"curl -F file=@photo.jpg {standalone.url}/images" in standalone.log


async def test_start_says_that_there_is_no_authentication(standalone: Standalone) -> None:
    lines = [entry for entry in standalone.lines(OPEN) if entry["level"] == "warning"]
    assert [(line["host"], line["port"]) for line in lines] == [("127.0.0.1", int(standalone.url.rpartition(":")[2]))]


async def test_a_rebound_host_name_reaches_nothing(standalone: Standalone) -> None:
    async with client(standalone.url) as api:
        for path in ("/images", "/health", "/docs"):
            refused = await api.get(path, headers={"Host": "evil.example"})
            assert (refused.status_code, refused.json()["code"]) == (421, "host-not-allowed")
        for host in ("localhost", socket.gethostname(), "192.0.2.1:80"):
            assert (await api.get("/health/live", headers={"Host": host})).status_code == 200


async def test_unfinished_images_of_a_killed_process_are_resumed_at_start(standalone: Standalone) -> None:
    standalone.hold_decoders()
    async with client(standalone.url) as api:
        ids = await upload_all(api, [PHOTO] * 4)
        assert any([(await status(api, image_id))["status"] == "PROCESSING" for image_id in ids])
    standalone.kill()
    standalone.start()
    async with client(standalone.url) as api:
        images = await finished(api, ids)
    assert [image["status"] for image in images] == ["DONE"] * 4


async def test_decoders_do_not_outlive_a_killed_service(standalone: Standalone) -> None:
    decoders = standalone.process.children()
    assert decoders
    standalone.crash()
    await eventually(lambda: not any(decoder.is_running() and decoder.status() != "zombie" for decoder in decoders))


async def test_stop_finishes_the_image_in_progress(standalone: Standalone) -> None:
    standalone.hold_decoders()
    async with client(standalone.url) as api:
        image_id = (await upload(api, PHOTO))["id"]
    stopping = asyncio.create_task(asyncio.to_thread(standalone.stop))
    await eventually(lambda: standalone.lines(STOPPING))
    standalone.release_decoders()
    await stopping
    assert [line["image_id"] for line in standalone.lines("image done")] == [image_id]


def test_second_process_on_the_same_folder_is_refused(standalone: Standalone, fork_server: str) -> None:
    command = ("standalone", "--port", "0", "--data", standalone.data)
    second = run(fork_server, PROGRAM, *command, folder=standalone.data, environment=os.environ)
    assert second.returncode == 1
    assert f"in use by another process (pid {standalone.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr


def test_port_in_use_is_reported(standalone: Standalone, fork_server: str, tmp_path: Path) -> None:
    port = standalone.url.rpartition(":")[2]
    command = ("standalone", "--port", port, "--data", tmp_path / "other")
    second = run(fork_server, PROGRAM, *command, folder=tmp_path, environment=os.environ)
    assert second.returncode == 1
    assert second.stderr.startswith(f"image-service: Cannot listen on 127.0.0.1 port {port}: Address already in use.")


async def test_image_deleted_while_it_is_rendered_leaves_no_files(tmp_path: Path) -> None:
    with Standalone(tmp_path, FAST_SETTINGS | {"ORPHAN_GRACE": "4", "SWEEP_INTERVAL": "0.3"}) as service:
        storage = service.data / "storage"

        def files() -> list[Path]:
            folders = ("originals", "thumbnails", "scratch")
            return [path for folder in folders for path in (storage / folder).rglob("*") if path.is_file()]

        async with client(service.url) as api:
            service.hold_decoders()
            image_id = (await upload(api, PHOTO))["id"]
            await eventually(lambda: list((storage / "scratch").iterdir()))
            assert (await api.delete(f"/images/{image_id}")).status_code == 204
            assert (await api.get(f"/images/{image_id}")).status_code == 404
            service.release_decoders()
            await eventually(lambda: not files(), timeout=20)
            await eventually(lambda: not list((storage / "scratch").iterdir()), timeout=20)
            other = await done(api, (await upload(api, PHOTO))["id"])  # its decoders still work
            assert len(files()) == 1 + len(other["thumbnails"])
            assert [each["id"] for each in (await api.get("/images")).json()["images"]] == [other["id"]]


async def test_old_thumbnails_are_served_during_reprocessing(standalone: Standalone) -> None:
    async with client(standalone.url) as api:
        image_id = (await upload(api, PHOTO))["id"]
        before = await done(api, image_id)
        standalone.hold_decoders()
        answer = await api.post(f"/images/{image_id}/reprocess")
        assert (answer.status_code, answer.json()["status"]) == (202, "PROCESSING")
        meanwhile = await status(api, image_id)
        assert (meanwhile["status"], meanwhile["finished_at"]) == ("PROCESSING", None)
        assert meanwhile["thumbnails"] == before["thumbnails"]
        for url in meanwhile["thumbnails"].values():
            assert (await api.get(url)).status_code == 200
        standalone.release_decoders()
        after = await done(api, image_id)
        assert after["finished_at"] > before["finished_at"]
        for url in after["thumbnails"].values():
            assert (await api.get(url)).status_code == 200


async def test_image_in_error_can_be_reprocessed_with_other_settings(tmp_path: Path) -> None:
    cut_off = PHOTO[: len(PHOTO) // 2]
    with Standalone(tmp_path) as service:
        async with client(service.url) as api:
            image_id = (await upload(api, cut_off))["id"]
            (failed,) = await finished(api, [image_id])
            assert (failed["status"], failed["error"]["code"]) == ("ERROR", "corrupt-image")
        service.stop()
    with Standalone(tmp_path, {"RENDER_TRUNCATED": "true"}) as service:
        async with client(service.url) as api:
            assert (await api.post(f"/images/{image_id}/reprocess")).status_code == 202
            image = await done(api, image_id)
            assert image["error"] is None
            assert set(image["thumbnails"]) == {"100x100", "300x300", "1200x1200"}


async def test_full_disk_refuses_upload_and_keeps_nothing(tmp_path: Path) -> None:
    with Standalone(tmp_path, disk_megabytes=6) as service:
        async with client(service.url) as api:
            answer = await api.post("/images", files={"file": encoded(noise(2000, 2000), "PNG")})
            assert answer.status_code == 507, answer.text
            assert answer.json()["code"] == "storage-full"
            assert (await api.get("/health")).json()["status"] == "healthy"
            assert (await done(api, (await upload(api, PHOTO))["id"]))["status"] == "DONE"


async def test_nearly_full_disk_refuses_uploads_only(tmp_path: Path) -> None:
    """Of 30 MB, uploads leave 1.5 free: a deletion needs some for the database."""
    with Standalone(tmp_path, disk_megabytes=30) as service:
        disk = Path(f"/proc/{service.process.pid}/root{service.data}")  # as the process sees it
        async with client(service.url) as api:

            async def is_refused() -> bool:
                answer = await api.post("/images", files={"file": SMALL})
                assert answer.status_code in {202, 507}
                return answer.status_code == 507 and answer.json()["code"] == "storage-full"

            large = await upload_all(api, [encoded(noise(500, 500), "PNG") for _ in range(5)])
            await finished(api, large)
            (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - 1_000_000))
            await eventually(is_refused, interval=0.5)  # the service looks at the disk once in a second
            for image_id in large:
                assert (await api.delete(f"/images/{image_id}")).status_code == 204
            assert (await done(api, (await upload(api, PHOTO))["id"]))["status"] == "DONE"
