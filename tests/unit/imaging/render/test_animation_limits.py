"""Animations that exceed a limit, or whose frames are hostile, are left to the first frame."""

import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image

from harness.animations import Part, apng, gif, gif_frame, webp, webp_frame
from harness.images import noise
from image_service.domain.image import ImageFormat
from image_service.domain.recipe import OutputFormat
from image_service.imaging.limits import DEFAULT_LIMITS, MAX_FRAMES
from image_service.imaging.render import animation
from tests.unit.imaging.render.test_animation import KINDS, MAKERS, OUTPUT, PARTS, SIZE, kept, made


@pytest.mark.parametrize("kind", KINDS)
def test_exceeding_a_limit_leaves_it_to_others(kind: OutputFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    content, output = gif(SIZE, *PARTS), replace(OUTPUT, format=kind)
    size_bytes = len(kept(content, output).content)
    for name, most in (
        ("MAX_FRAMES", 4),
        ("MAX_FRAMES_PIXELS", 4 * 2 * 80 * 60),
        ("MAX_ANIMATION_PIXELS", 4 * 40 * 30),
        ("MAX_ANIMATION_BYTES", size_bytes),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(animation, name, most)
            assert made(content, output), name
            patch.setattr(animation, name, most - 1)
            assert made(content, output) is None, name


def test_takes_no_more_time_than_it_is_given() -> None:
    content = gif(SIZE, *PARTS)
    assert made(content, seconds=0) is None
    assert made(content, seconds=60)


def test_animations_of_an_image_take_less_than_all_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    content, used = gif(SIZE, *PARTS), time.process_time()
    for left, share in ((9, 3), (0.3, 0.1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, left=left: (used + left, resource.RLIM_INFINITY))
        assert animation._seconds_left(DEFAULT_LIMITS) * animation._SHARE == pytest.approx(share, abs=0.2)
    assert made(content) is not None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used, resource.RLIM_INFINITY))
    assert made(content) is None


def test_a_lack_of_memory_leaves_it_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(animation, "resize", fail)
    assert made(gif(SIZE, *PARTS)) is None


def _enormous_gif_frame() -> bytes:
    """A small frame, then one of 65,535 x 65,535 pixels in a few bytes."""
    first, last = gif_frame(PARTS[0]), bytearray(gif_frame(PARTS[1]))
    last[8 + 5 : 8 + 9] = b"\xff\xff\xff\xff"
    return gif(SIZE)[:-1] + first + bytes(last) + b";"


def _enormous_canvas() -> bytes:
    dot = Part(image=Image.new("RGBA", (1, 1)))
    return gif((7000, 7000), *[replace(dot, at=(index, 0)) for index in range(20)])


def _misplaced_png_frame() -> bytes:
    return apng(SIZE, PARTS[0], replace(PARTS[1], at=(1, 0)))


def _png_frame_without_pixels() -> bytes:
    content = apng(SIZE, *PARTS[:2])
    return content.replace(b"fdAT", b"fdAX")


def _webp_frame_of_another_size() -> bytes:
    """A frame whose pixels are more than its chunk says."""
    frame = bytearray(webp_frame(Part(image=noise(400, 400).convert("RGBA"))))
    frame[8 + 6 : 8 + 12] = webp_frame(PARTS[0])[8 + 6 : 8 + 12]
    content = bytearray(webp(SIZE, PARTS[0]) + frame)
    content[4:8] = struct.pack("<I", len(content) - 8)
    return bytes(content)


def _webp_frame_without_pixels() -> bytes:
    frame = webp_frame(PARTS[1])[: 8 + 16]
    content = bytearray(webp(SIZE, PARTS[0]) + frame[:4] + struct.pack("<I", 16) + frame[8:])
    content[4:8] = struct.pack("<I", len(content) - 8)
    return bytes(content)


@pytest.mark.parametrize(
    "make",
    [
        _enormous_gif_frame,
        _enormous_canvas,
        _misplaced_png_frame,
        _png_frame_without_pixels,
        _webp_frame_of_another_size,
        _webp_frame_without_pixels,
    ],
)
def test_hostile_frames_leave_it_to_others(make: Callable[[], bytes]) -> None:
    assert made(make()) is None


@pytest.mark.parametrize("image_format", MAKERS)
def test_a_hundred_thousand_frames_are_given_up_at_once(image_format: ImageFormat) -> None:
    dot = Part(image=Image.new("RGBA", (1, 1), "red"))
    few = MAKERS[image_format]((1, 1), dot, dot)
    match image_format:
        case ImageFormat.GIF:
            content = few[:-1] + gif_frame(dot) * 20_000 + b";"
        case ImageFormat.WEBP:
            content = few + webp_frame(dot) * 100_000
        case _:
            content = apng((1, 1), *[dot] * (MAX_FRAMES + 1))
    assert made(content, seconds=0.5) is None


def test_many_blocks_without_a_frame_are_given_up() -> None:
    content = gif(SIZE, *PARTS)
    assert made(content[:-1] + b"!\xfe\1a\0" * 70_000 + content[13:]) is None


FRAMES_IN_A_PROCESS = """
import resource, sys
from harness.images import gradient
from harness.animations import Part, gif_frame, gif
from image_service.domain.image import ImageFormat, ImageHeader
from image_service.domain.recipe import Animation, Output, OutputFormat
from image_service.imaging.limits import DEFAULT_LIMITS
from image_service.imaging.render.animation import animate

count, kind = int(sys.argv[1]), OutputFormat(sys.argv[2])
picture = gradient(500, 500).convert("RGBA")
one, other = (gif_frame(Part(image=each)) for each in (picture, picture.rotate(180)))
content = gif((500, 500))[:-1] + (one + other) * (count // 2) + b";"
output = Output(preset="a", format=kind, width=300, height=300, animation=Animation.KEEP)
header = ImageHeader(format=ImageFormat.GIF, width=500, height=500)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = animate(content, header, output, DEFAULT_LIMITS, seconds=100)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 - len(made.content) // 2**20)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_not_in_memory_at_once(kind: OutputFormat) -> None:
    command = [sys.executable, "-c", FRAMES_IN_A_PROCESS]
    few, many = (
        int(subprocess.run([*command, count, kind.value], capture_output=True, text=True, check=True).stdout)  # noqa: S603  (fixed)
        for count in ("6", "200")
    )
    # All of them would be 200 MB as they are decoded, and 72 MB as they are encoded.
    assert many - few < 30
