"""GIF: Pillow's decoder, with a transparent canvas around the first frame."""

from PIL import Image
from PIL.GifImagePlugin import GifImageFile


def on_canvas(image: GifImageFile) -> Image.Image:
    """Return a decoded GIF's first frame with nothing around it, where Pillow puts the palette's first colour.

    Except where the frame has a transparent colour, which Pillow uses for the rest of the canvas too.
    """
    area = image.dispose_extent
    if area is None or area == (0, 0, *image.size) or "transparency" in image.info:
        return image
    canvas = Image.new("RGBA", image.size)
    canvas.paste(image.crop(area).convert("RGBA"), area)
    return canvas
