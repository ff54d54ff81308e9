"""Pictures that computers draw: screenshots, text, logos and charts."""

import math
from collections.abc import Callable
from random import Random
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFont

_WORDS: Final = [
    "the",
    "service",
    "stores",
    "every",
    "image",
    "before",
    "it",
    "answers",
    "and",
    "makes",
    "small",
    "ones",
    "of",
    "it",
    "in",
    "another",
    "process",
]
_RED, _GREEN, _BLUE, _ORANGE, _PURPLE = "#d32f2f", "#2e7d32", "#1565c0", "#ef6c00", "#6a1b9a"
_COLOURS: Final = (_RED, _GREEN, _BLUE, _ORANGE, _PURPLE)


def _random(seed: int) -> Random:
    return Random(seed)  # noqa: S311 — for pictures


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _canvas(width: int, height: int, colour: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), colour)
    return image, ImageDraw.Draw(image)


def _sentence(random: Random, words: int) -> str:
    return " ".join(random.choice(_WORDS) for _ in range(words))


def web_page() -> Image.Image:
    """Headings, paragraphs, links and buttons."""
    random, (image, draw) = _random(1), _canvas(1440, 900, "white")
    draw.rectangle((0, 0, 1440, 64), _BLUE)
    draw.text((40, 18), "Image service", "white", _font(26))
    for at, label in enumerate(("Home", "Prices", "Documents", "Log in")):
        draw.text((900 + 130 * at, 22), label, "#bbdefb", _font(18))
    for column in range(2):
        left, top = 40 + 700 * column, 100
        draw.text((left, top), _sentence(random, 4).title(), "black", _font(34))
        for line in range(18):
            link = line % 5 == column
            draw.text((left, top + 60 + 28 * line), _sentence(random, 9), _BLUE if link else "#333333", _font(17))
        draw.rounded_rectangle((left, 700, left + 220, 760), 12, _RED if column else _GREEN)
        draw.text((left + 40, 716), "Try it now", "white", _font(22))
    return image


def code_editor() -> Image.Image:
    """Coloured code on a dark background."""
    random, (image, draw) = _random(2), _canvas(1920, 1080, "#1e1e1e")
    draw.rectangle((0, 0, 240, 1080), "#252526")
    draw.rectangle((0, 1054, 1920, 1080), "#007acc")
    for line in range(46):
        draw.text((270, 10 + 22 * line), f"{line + 1:3}", "#858585", _font(16))
        if line < 30:
            draw.text((30, 16 + 26 * line), f"{random.choice(_WORDS)}.py", "#cccccc", _font(16))
        left = 330.0 + 40 * random.randrange(4)
        for _ in range(random.randrange(9)):
            word = random.choice(_WORDS)
            colour = random.choice(("#569cd6", "#ce9178", "#4ec9b0", "#c586c0", "#dcdcaa", "#d4d4d4", "#6a9955"))
            draw.text((left, 10 + 22 * line), word, colour, _font(16))
            left += draw.textlength(word + "  ", _font(16))
    return image


def terminal() -> Image.Image:
    """Saturated text on black."""
    random, (image, draw) = _random(3), _canvas(1000, 640, "black")
    for line in range(30):
        colour = random.choice(("#00ff00", "#ff5555", "#5555ff", "#ffff55", "#ff55ff", "#aaaaaa"))
        draw.text((8, 6 + 21 * line), f"$ {_sentence(random, 10)}", colour, _font(15))
    return image


def spreadsheet() -> Image.Image:
    """Grid lines, numbers and coloured cells."""
    random, (image, draw) = _random(4), _canvas(1280, 800, "white")
    for row in range(32):
        for column in range(13):
            box = (100 * column, 25 * row, 100 * column + 100, 25 * row + 25)
            fill = "#eeeeee" if not row * column else random.choice(("white",) * 9 + ("#ffcdd2", "#c8e6c9"))
            draw.rectangle(box, fill, "#cccccc")
            colour = _RED if random.random() < 0.1 else "black"
            draw.text((box[0] + 20, box[1] + 4), f"{random.randrange(100000) / 100:.2f}", colour, _font(14))
    return image


def bar_chart() -> Image.Image:
    """Bars of flat colours with labels."""
    random, (image, draw) = _random(5), _canvas(1200, 800, "white")
    for line in range(8):
        draw.line((90, 80 + 80 * line, 1160, 80 + 80 * line), "#dddddd")
        draw.text((40, 70 + 80 * line), f"{70 - 10 * line}", "#555555", _font(18))
    for bar in range(12):
        height = random.randrange(60, 560)
        draw.rectangle((110 + 88 * bar, 640 - height, 170 + 88 * bar, 640), _COLOURS[bar % 5])
        draw.text((118 + 88 * bar, 650), f"Q{bar % 4 + 1}", "black", _font(20))
    draw.text((420, 20), "Images a second", "black", _font(32))
    return image


def line_chart() -> Image.Image:
    """Thin coloured lines, smoothed at their edges."""
    random, (image, draw) = _random(6), _canvas(2400, 1500, "white")
    for line in range(9):
        draw.line((140, 140 + 140 * line, 2300, 140 + 140 * line), "#e0e0e0", 2)
    for colour in _COLOURS:
        phase = random.random() * 6
        points = [(x, 750 + 500 * math.sin(x / 260 + phase) * math.cos(x / 700)) for x in range(140, 2300, 10)]
        draw.line(points, colour, 5, "curve")
    image = image.resize((1200, 750), Image.Resampling.LANCZOS)
    ImageDraw.Draw(image).text((420, 10), "Milliseconds, by version", "black", _font(28))
    return image


def logo() -> Image.Image:
    """Round shapes of flat colours."""
    image, draw = _canvas(2400, 2400, "white")
    for turn, colour in enumerate(_COLOURS):
        angle = turn * math.tau / 5
        x, y = 1200 + 560 * math.cos(angle), 1000 + 560 * math.sin(angle)
        draw.ellipse((x - 330, y - 330, x + 330, y + 330), colour)
    draw.text((520, 1900), "FIVE DOTS", "#212121", _font(260))
    return image.resize((800, 800), Image.Resampling.LANCZOS)


def wordmark() -> Image.Image:
    """Red letters on blue: their edges differ in colour more than in lightness."""
    image, draw = _canvas(1200, 400, "#0d47a1")
    draw.text((90, 90), "Crisp & Co.", "#e53935", _font(190))
    draw.text((96, 310), "graphics since this morning", "#ff8a80", _font(44))
    return image


def pixel_art() -> Image.Image:
    """A few colours in large squares."""
    random, image = _random(7), Image.new("RGB", (48, 48), "#263238")
    for y in range(6, 42):
        for x in range(6, 24):
            if random.random() < 0.6:
                colour = random.choice(((239, 83, 80), (255, 202, 40), (102, 187, 106), (66, 165, 245)))
                image.putpixel((x, y), colour)
                image.putpixel((47 - x, y), colour)
    return image.resize((768, 768), Image.Resampling.NEAREST)


def line_drawing() -> Image.Image:
    """Black curves on white, smoothed at their edges."""
    random, (image, draw) = _random(8), _canvas(2400, 1800, "white")
    for _ in range(40):
        x, y, radius = random.randrange(200, 2200), random.randrange(200, 1600), random.randrange(40, 500)
        draw.arc((x - radius, y - radius, x + radius, y + radius), random.randrange(360), random.randrange(360), 0, 6)
    return image.resize((1200, 900), Image.Resampling.LANCZOS)


def street_map() -> Image.Image:
    """Coloured areas, roads and names."""
    random, (image, draw) = _random(9), _canvas(1200, 900, "#f2efe9")
    for _ in range(25):
        x, y = random.randrange(1200), random.randrange(900)
        corners = [(x + random.randrange(-120, 120), y + random.randrange(-120, 120)) for _ in range(5)]
        draw.polygon(corners, random.choice(("#add19e", "#aad3df", "#d9d0c9", "#e0dfdf")))
    for road in range(24):
        ends = (random.randrange(1200), 0, random.randrange(1200), 900)
        ends = ends if road % 2 else (0, random.randrange(900), 1200, random.randrange(900))
        draw.line(ends, "#c9743b" if road % 4 == 0 else "#aaaaaa", 9)
        draw.line(ends, "#fcd6a4" if road % 4 == 0 else "white", 6)
    for _ in range(30):
        draw.text((random.randrange(1100), random.randrange(880)), random.choice(_WORDS).title(), "#444444", _font(15))
    return image


def phone_chat() -> Image.Image:
    """A tall screenshot of a phone, with more pixels than any thumbnail."""
    random, (image, draw) = _random(10), _canvas(1080, 2340, "#ece5dd")
    draw.rectangle((0, 0, 1080, 180), "#075e54")
    draw.text((60, 70), "Colleagues", "white", _font(56))
    for message in range(14):
        mine = random.random() < 0.5
        left, top = (300 if mine else 40), 220 + 150 * message
        draw.rounded_rectangle((left, top, left + 740, top + 120), 24, "#dcf8c6" if mine else "white")
        draw.text((left + 24, top + 12), "Alex" if mine else "Kim", _GREEN if mine else _PURPLE, _font(32))
        draw.text((left + 24, top + 58), _sentence(random, 6), "#111111", _font(38))
    return image


def large_screen() -> Image.Image:
    """A screenshot of a screen with small pixels; all of its edges are between two pixels of the thumbnail."""
    return web_page().resize((2880, 1800), Image.Resampling.BICUBIC)


def slide() -> Image.Image:
    """Large text on a background that changes slowly."""
    top, bottom = Image.new("RGB", (1600, 900), "#1a237e"), Image.new("RGB", (1600, 900), "#4a148c")
    image = Image.composite(bottom, top, Image.linear_gradient("L").resize((1600, 900)))
    random, draw = _random(14), ImageDraw.Draw(image)
    draw.text((120, 100), "What we learned", "#ffeb3b", _font(90))
    for at in range(5):
        draw.text((140, 300 + 100 * at), f"- {_sentence(random, 6)}", "white", _font(48))
    return image


def flow_chart() -> Image.Image:
    """Boxes and arrows."""
    random, (image, draw) = _random(13), _canvas(1000, 700, "white")
    for row in range(3):
        for column in range(3):
            left, top = 60 + 320 * column, 60 + 220 * row
            draw.rounded_rectangle((left, top, left + 220, top + 110), 10, "#e3f2fd", _BLUE, 3)
            draw.text((left + 30, top + 40), random.choice(_WORDS), _RED, _font(26))
            if column < 2:
                draw.line((left + 220, top + 55, left + 320, top + 55), "black", 3)
    return image


def subpixel_text() -> Image.Image:
    """Text whose edges are coloured, as screens of red, green and blue stripes have it drawn."""
    random, wide = _random(11), Image.new("L", (3 * 900, 600), 255)
    letters = Image.new("L", (900, 600), 255)
    draw = ImageDraw.Draw(letters)
    for line in range(22):
        draw.text((20, 14 + 26 * line), _sentence(random, 11), 0, _font(17))
    wide = letters.resize(wide.size, Image.Resampling.BICUBIC)
    planes = [ImageChops.offset(wide, shift, 0).resize((900, 600), Image.Resampling.BOX) for shift in (1, 0, -1)]
    return Image.merge("RGB", planes)


def bar_code() -> Image.Image:
    """Black squares on white."""
    random, image = _random(12), Image.new("L", (41, 41), 255)
    for y in range(4, 37):
        for x in range(4, 37):
            image.putpixel((x, y), random.choice((0, 255)))
    return image.resize((410, 410), Image.Resampling.NEAREST)


GRAPHICS: Final[dict[str, Callable[[], Image.Image]]] = {
    "web page": web_page,
    "code editor": code_editor,
    "terminal": terminal,
    "spreadsheet": spreadsheet,
    "bar chart": bar_chart,
    "line chart": line_chart,
    "logo": logo,
    "wordmark": wordmark,
    "pixel art": pixel_art,
    "line drawing": line_drawing,
    "street map": street_map,
    "phone chat": phone_chat,
    "large screen": large_screen,
    "slide": slide,
    "flow chart": flow_chart,
    "subpixel text": subpixel_text,
    "bar code": bar_code,
}
