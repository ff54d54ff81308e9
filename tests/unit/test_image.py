"""Media types and file name extensions of formats."""

import pytest

from image_service.domain.image import ImageFormat

NAMES = {
    ImageFormat.JPEG: ("image/jpeg", "jpg"),
    ImageFormat.PNG: ("image/png", "png"),
    ImageFormat.GIF: ("image/gif", "gif"),
    ImageFormat.WEBP: ("image/webp", "webp"),
    ImageFormat.AVIF: ("image/avif", "avif"),
    ImageFormat.HEIC: ("image/heic", "heic"),
    ImageFormat.JXL: ("image/jxl", "jxl"),
    ImageFormat.TIFF: ("image/tiff", "tiff"),
    ImageFormat.BMP: ("image/bmp", "bmp"),
}


@pytest.mark.parametrize("image_format", ImageFormat)
def test_media_types_and_extensions(image_format: ImageFormat) -> None:
    assert (image_format.content_type, image_format.extension) == NAMES[image_format]


@pytest.mark.parametrize("image_format", ImageFormat)
def test_a_media_type_maps_to_its_format(image_format: ImageFormat) -> None:
    assert ImageFormat.of(image_format.content_type) is image_format


@pytest.mark.parametrize("content_type", ["image/svg+xml", "text/html", "", "image/"])
def test_other_media_types_are_refused(content_type: str) -> None:
    with pytest.raises(ValueError, match="not a valid ImageFormat"):
        ImageFormat.of(content_type)
