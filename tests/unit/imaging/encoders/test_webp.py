"""WebP animations are written frame by frame."""

import io

import pytest
from PIL import Image, _webp

from harness.images import gradient
from image_service.imaging.encoders import webp


def writer() -> webp.Writer:
    return webp.Writer((40, 30), plays=3, quality=80, method=2)


def test_frames_of_all_modes() -> None:
    made = writer()
    for mode, milliseconds in (("L", 50), ("RGB", 33.4), ("RGBA", 33.4)):
        made.add(gradient(40, 30).convert(mode), milliseconds)
        made.add(gradient(40, 30).rotate(180).convert(mode), 100)
    content = made.finish()
    assert made.size_bytes == len(content)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.size, image.n_frames, image.info["loop"]) == ((40, 30), 6, 3)  # type: ignore[attr-defined]  # of animations


def test_lack_of_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    made = writer()
    with pytest.raises(MemoryError):
        # As the encoder reports it, it reports a frame of another size.
        made.add(gradient(41, 30), 100)
    made = writer()
    made.add(gradient(40, 30), 100)
    monkeypatch.setattr(made, "_encoder", _Failing())
    with pytest.raises(MemoryError):
        made.finish()


class _Failing:
    def add(self, *_: object) -> None:
        """Take what flushes the frames."""

    def assemble(self, *_: object) -> None:
        """Return nothing, as where there is too little memory."""


def test_plays_have_a_bound() -> None:
    made = webp.Writer((4, 4), plays=1 << 31, quality=80, method=0)
    for colour in ("red", "blue"):
        made.add(Image.new("RGB", (4, 4), colour), 100)
    assert Image.open(io.BytesIO(made.finish())).info["loop"] == 0xFFFF


def test_encoder_is_in_pillow() -> None:
    assert hasattr(_webp, "WebPAnimEncoder")
