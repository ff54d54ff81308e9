"""The process pool: limits, replacement of processes, and shutdown."""

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from harness.images import encoded, gradient
from harness.waiting import eventually
from image_service.domain.image import ImageFormat, Rendering
from image_service.domain.recipe import (
    DEFAULT_RECIPE,
    Animation,
    Effort,
    Fit,
    Gravity,
    OutputFormat,
    Preset,
    Recipe,
)
from image_service.errors import (
    CorruptImage,
    DecoderCrashed,
    DecoderOutOfMemory,
    DecoderTimeout,
    ImageTooLarge,
    ObjectUnreadable,
    Outage,
    StorageFull,
    UnsupportedFormat,
)
from image_service.imaging.isolation.jobs import Job
from image_service.imaging.isolation.protocol import decode_reply
from image_service.imaging.limits import DEFAULT_LIMITS
from tests.contract.rendering import GOOD, Give, MakePool, children, render, slow


@pytest.mark.parametrize("name", ["HEIF", "JXL", "TIFF", "BMP"])
async def test_process_decodes_only_enabled_formats(make_pool: MakePool, give: Give, name: str) -> None:
    content = encoded(gradient(640, 480), name)
    assert (await render(make_pool(formats=tuple(ImageFormat)), give(content))).thumbnails
    for formats in ({}, {"formats": (ImageFormat.JPEG,)}):
        with pytest.raises(UnsupportedFormat):
            await render(make_pool(**formats), give(content))


async def test_process_renders_truncated_file_if_enabled(make_pool: MakePool, give: Give) -> None:
    rendering = await render(make_pool(truncated=True), give(GOOD[: len(GOOD) // 2]))
    assert (rendering.width, rendering.height) == (640, 480)


async def test_slow_optional_output_is_left_out_and_replaces_the_process(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(wall_seconds=6)
    await pool.start()
    (first,) = children()
    late = Preset(
        name="late", width=4000, height=4000, formats=(OutputFormat.AVIF,), effort=Effort.SMALL, optional=True
    )
    source, out = give(slow())
    rendering = await pool.render(source, Recipe(presets=(late, *DEFAULT_RECIPE.presets)), out)
    assert [each.output for each in rendering.thumbnails] == ["100x100", "300x300", "1200x1200"]
    assert {path.name for path in out.iterdir()} == {"source", "100x100", "300x300", "1200x1200"}
    assert first not in children()
    assert (await render(pool, give(GOOD))).thumbnails


async def test_makes_optional_outputs(make_pool: MakePool, give: Give) -> None:
    recipe = Recipe(presets=(Preset(name="extra", width=300, height=300, formats=(OutputFormat.AVIF,), optional=True),))
    pool = make_pool()
    for _ in range(2):
        rendering = await render(pool, give(GOOD), recipe)
        assert [each.content_type for each in rendering.thumbnails] == ["image/avif"]
    assert len(children()) == 1


def everything(*, optional: bool = False) -> Recipe:
    """Return a recipe of every fit and format, with densities, variants and an animation."""
    shapes = tuple(
        Preset(
            name=fit.value,
            width=160,
            height=120,
            fit=fit,
            gravity=Gravity.ATTENTION,
            formats=(OutputFormat.AUTO, OutputFormat.PNG, OutputFormat.WEBP, OutputFormat.AVIF),
            dpr=(1, 2, 5),
            sharpen=fit is Fit.INSIDE,
            linear=fit is Fit.OUTSIDE,
            enlarge=fit is Fit.PAD,
            optional=optional,
        )
        for fit in Fit
    )
    sticker = Preset(name="sticker", width=90, formats=(OutputFormat.WEBP, OutputFormat.GIF), animation=Animation.KEEP)
    return Recipe(presets=(*shapes, sticker))


def animation() -> bytes:
    frames = [Image.new("RGB", (300, 200), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        animation(),
        encoded(Image.new("RGBA", (400, 300), (255, 0, 0, 80)), "PNG"),
        encoded(gradient(900, 2), "PNG"),
    ],
    ids=["photo", "animation", "transparent", "thin"],
)
async def test_replies_with_every_kind_of_output_are_accepted(
    make_pool: MakePool, give: Give, content: bytes, *, optional: bool
) -> None:
    pool, recipe = make_pool(), everything(optional=optional)
    for _ in range(2):
        source, out = give(content)
        rendering = await pool.render(source, recipe, out)
        made = {each.output for each in rendering.thumbnails}
        assert made | set(rendering.left_out) == {each.name for each in recipe.outputs}
        assert {each.preset for each in recipe.outputs if each.name in made} == {*map(str, Fit), "sticker"}
        for each in rendering.thumbnails:
            assert each.path.stat().st_size == each.size_bytes
            with Image.open(each.path) as image:
                assert (image.size, image.get_format_mimetype()) == ((each.width, each.height), each.content_type)
    # A process that has left out variants is kept.
    assert len(children()) == 1


async def test_keeps_one_process_warm(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(4)
    await pool.start()
    (first,) = children()
    for _ in range(3):
        await render(pool, give(GOOD))
    assert children() == {first}


async def test_crash_fails_one_job_and_no_other(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(2)
    await asyncio.gather(pool.start(), pool.start())
    victim, _ = children()
    outcomes = asyncio.gather(*(render(pool, give(slow())) for _ in range(2)), return_exceptions=True)
    await asyncio.sleep(0)
    os.kill(victim, signal.SIGSEGV)
    crashed, finished = sorted(await outcomes, key=lambda outcome: isinstance(outcome, Rendering))
    assert isinstance(crashed, DecoderCrashed)
    assert isinstance(finished, Rendering)
    assert victim not in children()
    assert (await render(pool, give(GOOD))).thumbnails


async def test_replaces_a_process_that_died_while_idle(make_pool: MakePool, give: Give) -> None:
    pool = make_pool()
    await pool.start()
    (idle,) = children()
    os.kill(idle, signal.SIGKILL)
    child = pool._slots[0]._process
    await eventually(lambda: child is not None and not child.alive)
    assert (await render(pool, give(GOOD))).thumbnails


async def test_wall_time_limit(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(wall_seconds=0.05)
    await pool.start()
    with pytest.raises(DecoderTimeout):
        await render(pool, give(slow()))
    assert not children()


async def test_processor_time_limit(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(cpu_seconds=1)
    endless = Recipe(presets=tuple(Preset(name=f"{size}", width=size, height=size) for size in range(3500, 3900)))
    with pytest.raises(DecoderTimeout):
        await render(pool, give(slow()), endless)
    assert (await render(pool, give(GOOD))).thumbnails


async def test_processor_time_limit_is_per_job(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(cpu_seconds=2)
    for _ in range(5):
        await render(pool, give(slow()))
    assert len(children()) == 1


async def test_memory_limit(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(memory_bytes=160 << 20)
    await pool.start()
    (first,) = children()
    with pytest.raises(DecoderOutOfMemory):
        # Small enough to pass the estimate.
        await render(pool, give(encoded(Image.new("RGB", (5400, 5000)), "PNG")))
    assert (await render(pool, give(GOOD))).thumbnails
    assert first not in children()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
async def test_lack_of_memory_is_never_reported_as_damage(make_pool: MakePool, give: Give, name: str) -> None:
    pool = make_pool(memory_bytes=96 << 20)
    with pytest.raises((DecoderOutOfMemory, DecoderCrashed, ImageTooLarge)):
        await render(
            pool,
            give(encoded(gradient(3000, 3000), name)),
            Recipe(presets=(Preset(name="a", width=2500, height=2500),)),
        )


def damaged(content: bytes, at: int) -> bytes:
    """Return the file with other bytes in one place."""
    return content[:at] + bytes(byte ^ 0xFF for byte in content[at : at + 200]) + content[at + 200 :]


DAMAGED = {
    "PNG": lambda: damaged(encoded(gradient(4000, 4000), "PNG", compress_level=1), 100_000),
    "PNG, cut": lambda: encoded(gradient(4000, 4000), "PNG", compress_level=1)[:100_000],
    "GIF": lambda: encoded(gradient(4000, 4000).convert("L"), "GIF")[:100_000],
    "AVIF": lambda: damaged(content := encoded(gradient(4000, 4000), "AVIF", speed=10), content.index(b"mdat") + 20),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
async def test_damage_of_a_large_picture_is_not_taken_for_lack_of_memory(
    make_pool: MakePool, give: Give, content: Callable[[], bytes]
) -> None:
    # There is memory for this picture, but not for one of as many pixels in the format that takes the most.
    with pytest.raises(CorruptImage):
        await render(make_pool(memory_bytes=400 << 20), give(content()))


async def test_source_that_only_the_decoder_cannot_read_is_a_crash_of_the_decoder(
    make_pool: MakePool, give: Give, tmp_path: Path
) -> None:
    source, out = give(GOOD)
    elsewhere = tmp_path / "elsewhere"
    source.rename(elsewhere)
    source.symlink_to(elsewhere)
    pool = make_pool(readable=(str(out),), writable=(), require_sandbox=True)
    with pytest.raises(DecoderCrashed):
        await render(pool, (source, out))


async def test_source_that_the_worker_cannot_read_is_unreadable(make_pool: MakePool, give: Give) -> None:
    source, out = give(GOOD)
    source.unlink()
    source.mkdir()
    with pytest.raises(ObjectUnreadable):
        await render(make_pool(), (source, out))


async def test_full_disk_raises_storage_full_and_keeps_the_process(make_pool: MakePool, give: Give) -> None:
    huge = Recipe(presets=(Preset(name="huge", width=2000, height=2000, quality=100),))
    pool = make_pool()
    await pool.start()
    before = children()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    given = give(slow())
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, most))  # of this process, which writes the thumbnails
    try:
        with pytest.raises(StorageFull):
            await render(pool, given, huge)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert children() == before


async def test_size_of_a_thumbnail_is_limited(make_pool: MakePool, give: Give) -> None:
    huge = Recipe(presets=(Preset(name="huge", width=2000, height=2000, quality=100),))
    pool = make_pool(file_bytes=500_000)
    with pytest.raises(DecoderCrashed):
        await render(pool, give(slow()), huge)
    assert (await render(pool, give(GOOD))).thumbnails


async def test_cancelling_kills_the_process(make_pool: MakePool, give: Give) -> None:
    pool = make_pool()
    await pool.start()
    task = asyncio.create_task(render(pool, give(slow())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()
    assert (await render(pool, give(GOOD))).thumbnails


async def test_cancelling_while_the_process_starts_leaves_none(make_pool: MakePool, give: Give) -> None:
    pool = make_pool()
    task = asyncio.create_task(render(pool, give(GOOD)))
    await eventually(children)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


async def test_close_leaves_no_process(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(2)
    await asyncio.gather(*(render(pool, give(GOOD)) for _ in range(4)))
    await pool.close()
    await pool.close()
    assert not children()
    with pytest.raises(Outage):
        await render(pool, give(GOOD))


async def test_close_kills_busy_process(make_pool: MakePool, give: Give) -> None:
    pool = make_pool()
    await pool.start()
    endless = Recipe(presets=tuple(Preset(name=f"{size}", width=size, height=size) for size in range(3500, 3900)))
    task = asyncio.create_task(render(pool, give(slow()), endless))
    await asyncio.sleep(0)
    await pool.close()
    assert not children()
    # An outage, which does not count against the image.
    with pytest.raises(Outage):
        await task


async def test_replaces_a_process_after_some_jobs(make_pool: MakePool, give: Give) -> None:
    pool = make_pool(jobs_per_child=2)
    seen = set()
    for _ in range(5):
        await pool.start()
        seen |= children()
        await render(pool, give(GOOD))
    assert len(seen) == 3


async def test_limits_resources_of_processes(make_pool: MakePool) -> None:
    pool = make_pool()
    await pool.start()
    (child,) = children()
    process = psutil.Process(child)
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_AS) == (1 << 30, 1 << 30)
    assert process.rlimit(psutil.RLIMIT_FSIZE) == (64 << 20, 64 << 20)
    assert process.rlimit(psutil.RLIMIT_NOFILE) == (64, 64)
    assert process.num_threads() == 1  # Landlock confines the thread that asks for it, and those it starts later
    assert os.getpgid(child) == child
    kept = {"LD_LIBRARY_PATH", "PYTHONPATH", *(name for name in os.environ if name.startswith("COVERAGE_"))}
    assert process.environ().keys() <= {"PYTHONUTF8", "MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS"} | kept


PARENT = """
import asyncio, sys
from pathlib import Path
from image_service.domain.recipe import DEFAULT_RECIPE
from image_service.imaging.isolation.pool import RenderPool

async def main():
    pool = RenderPool(1)
    await pool.start()
    task = asyncio.create_task(pool.render(Path(sys.argv[1]), DEFAULT_RECIPE, Path(sys.argv[2])))
    await asyncio.sleep(0)
    print(pool._slots[0]._process._process.pid, flush=True)
    await task
    await asyncio.sleep(100)

asyncio.run(main())
"""


@pytest.mark.parametrize("content", [slow, bytes], ids=["busy", "idle"])
async def test_process_ends_when_parent_is_killed(give: Give, content: Callable[[], bytes]) -> None:
    source, out = give(content())
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        str(source),
        str(out),
        stdout=PIPE,
        stderr=DEVNULL,
        # A coverage file cut off by the kill would be reported as damaged.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
    )
    assert parent.stdout
    child = int(await parent.stdout.readline())
    with suppress(ProcessLookupError):
        parent.kill()
    await parent.wait()
    await eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


async def test_raises_outage_when_no_process_starts(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Outage):
        await make_pool(start_seconds=0).start()
    for executable in ("/bin/false", "/nonexistent/python"):
        monkeypatch.setattr("sys.executable", executable)
        with pytest.raises(Outage):
            await make_pool().start()
    assert not children()


@pytest.mark.parametrize("line", [b"", b"segmentation", b"[]", b"{}", b'{"code":"nonsense","detail":""}', b"7"])
def test_rejects_invalid_replies(line: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the message depends on the flaw)
        decode_reply(line, Job(source=tmp_path, recipe=DEFAULT_RECIPE, out=tmp_path), DEFAULT_LIMITS)
