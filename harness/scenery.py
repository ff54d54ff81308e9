"""Drawn pictures like those that users upload: a landscape, a product on a transparent ground, an animated sticker."""

import io
import math
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SKY: Final = ((92, 148, 209), (235, 214, 190))
_GRAIN: Final = 5.0
"""Standard deviation of the noise that a camera would add, of 255."""
_FRAMES: Final = 24


def landscape(width: int, height: int) -> Image.Image:
    """Return hills under a sky, with a lighthouse near the right edge: the part that a crop should keep."""
    steps = np.linspace(0, 1, height)[:, None, None]
    sky = (1 - steps) * _SKY[0] + steps * _SKY[1]
    picture = Image.fromarray(np.broadcast_to(sky, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for base, swing, colour in ((0.62, 0.06, (124, 152, 133)), (0.72, 0.05, (84, 124, 92)), (0.84, 0.03, (58, 92, 62))):
        ridge = [(x, height * (base + swing * math.sin(x / width * 9 + 20 * base))) for x in range(0, width + 8, 8)]
        draw.polygon([*ridge, (width, height), (0, height)], fill=colour)
    _lighthouse(draw, 0.83 * width, 0.80 * height, 0.5 * height)
    noise = np.random.default_rng(3).normal(0, _GRAIN, (height, width, 1))
    grainy = np.clip(np.asarray(picture, np.float64) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(grainy).filter(ImageFilter.GaussianBlur(0.6))


def _lighthouse(draw: ImageDraw.ImageDraw, x: float, foot: float, tall: float) -> None:
    def layer(low: float, high: float, wide: tuple[float, float], colour: str) -> None:
        """Draw a part between two heights, with its half widths there, all as shares of the height."""
        (left, right), (bottom, top) = wide, (foot - low * tall, foot - high * tall)
        draw.polygon(
            [(x - left * tall, bottom), (x + left * tall, bottom), (x + right * tall, top), (x - right * tall, top)],
            fill=colour,
        )

    for number in range(6):
        wide = (0.12 - 0.008 * number, 0.112 - 0.008 * number)
        layer(0.13 * number, 0.13 * (number + 1), wide, "#c8322d" if number % 2 else "#f6f2ea")
    layer(0.78, 0.82, (0.1, 0.1), "#333a44")
    layer(0.82, 0.92, (0.05, 0.05), "#ffe08a")
    layer(0.92, 1.0, (0.07, 0.0), "#c8322d")
    for floor in range(1, 5):
        layer(0.15 * floor, 0.15 * floor + 0.05, (0.015, 0.015), "#333a44")


def product(side: int) -> Image.Image:
    """Return a table lamp on a transparent ground, higher than wide."""
    picture = Image.new("RGBA", (side * 3 // 4, side))
    draw = ImageDraw.Draw(picture)
    unit = side / 100
    draw.polygon(
        [(20 * unit, 45 * unit), (55 * unit, 45 * unit), (46 * unit, 8 * unit), (29 * unit, 8 * unit)], "#e8b04a"
    )
    draw.rectangle((35.5 * unit, 45 * unit, 39.5 * unit, 88 * unit), "#6b6f76")
    draw.ellipse((20 * unit, 84 * unit, 55 * unit, 94 * unit), "#4c5057")
    draw.line((24 * unit, 44.5 * unit, 51 * unit, 44.5 * unit), "#b98328", round(unit))
    return picture.resize((side * 3 // 8, side // 2), Image.Resampling.LANCZOS)


def sticker(side: int) -> bytes:
    """Return an animated WebP of a bouncing ball with a shadow, on a transparent ground."""
    ball = _ball(side * 2 // 5)
    frames = []
    for number in range(_FRAMES):
        high = abs(math.sin(math.pi * number / _FRAMES))
        picture = Image.new("RGBA", (side, side))
        flat = 0.22 + 0.1 * (1 - high)
        shadow = (side * (0.5 - flat), side * 0.86, side * (0.5 + flat), side * 0.94)
        ImageDraw.Draw(picture).ellipse(shadow, (60, 60, 70, 255))
        picture.paste(ball, (round(side * 0.3), round(side * (0.5 - 0.42 * high))), ball)
        frames.append(picture)
    data = io.BytesIO()
    frames[0].save(data, "WEBP", save_all=True, append_images=frames[1:], duration=40, loop=0, lossless=True)
    return data.getvalue()


def _ball(side: int) -> Image.Image:
    """Return a ball that is lit from the upper left."""
    light = np.asarray(Image.radial_gradient("L").resize((side * 2, side * 2)), np.float64) / 255
    light = light[side // 2 : side // 2 + side, side * 5 // 8 : side * 5 // 8 + side]
    shade = (1.05 - light)[..., None] * np.array((255.0, 96.0, 72.0))
    ball = Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8)).convert("RGBA")
    outline = Image.new("L", (side, side))
    ImageDraw.Draw(outline).ellipse((0, 0, side - 1, side - 1), 255)
    ball.putalpha(outline)
    return ball
