"""The ``Accept`` headers that programs send when they ask for an image."""

from collections.abc import Mapping
from typing import Final

_CHROME_IMAGE: Final = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
_CHROME_PAGE: Final = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
_SAFARI_IMAGE: Final = (
    "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,"
    "image/*;q=0.8,*/*;q=0.5"
)

BROWSERS: Final[Mapping[str, tuple[str | None, set[str]]]] = {
    "Chromium 156, image": (
        "image/jxl,image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        {"jxl", "avif", "webp", "apng", "svg+xml"},
    ),
    "Chromium 156, page": (
        _CHROME_PAGE.replace("image/avif", "image/jxl,image/avif"),
        {"jxl", "avif", "webp", "apng"},
    ),
    "Chrome 120, image": (_CHROME_IMAGE, {"avif", "webp", "apng", "svg+xml"}),
    "Chrome 120, page": (_CHROME_PAGE, {"avif", "webp", "apng"}),
    "Chrome 79, image": ("image/webp,image/apng,image/*,*/*;q=0.8", {"webp", "apng"}),
    "Firefox 128, image": (
        "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
        {"avif", "webp", "png", "svg+xml"},
    ),
    "Firefox 120, page": (
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        {"avif", "webp"},
    ),
    "Firefox 91, image": ("image/webp,*/*", {"webp"}),
    "Safari 17, image": (
        _SAFARI_IMAGE,
        {"webp", "avif", "jxl", "heic", "heic-sequence", "png", "svg+xml"},
    ),
    "Safari 17, page": ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", set()),
    "Safari on iOS 12, image": ("image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5", {"png", "svg+xml"}),
    "Edge 18, image": ("image/png, image/svg+xml, image/jxr, image/*; q=0.8, */*; q=0.5", {"png", "svg+xml", "jxr"}),
    "Internet Explorer 11, image": ("image/png, image/svg+xml, image/*;q=0.8, */*;q=0.5", {"png", "svg+xml"}),
    "Googlebot": (
        "text/html,application/xhtml+xml,application/signed-exchange;v=b3,application/xml;q=0.9,*/*;q=0.8",
        set(),
    ),
    "Googlebot-Image": ("image/avif,image/webp,*/*;q=0.8", {"avif", "webp"}),
    "Facebook": ("*/*", set()),
    "curl": ("*/*", set()),
    "Java": ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", {"gif", "jpeg"}),
    "no header": (None, set()),
}
"""Each with the image types that it names."""
