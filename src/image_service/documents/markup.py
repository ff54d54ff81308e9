"""``srcset`` and ``<picture>``: what a page needs to show an image in the size and format that suit the browser."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from image_service.domain.average_colour import average_colour
from image_service.domain.image import Image, Thumbnail
from image_service.domain.outputs import Density, same_picture
from image_service.domain.recipe import Recipe


class Markup(NamedTuple):
    """An image as HTML."""

    srcset: str
    picture: str


def markup_of(image: Image, recipe: Recipe | None, url_of: Callable[[Thumbnail], str]) -> Markup | None:
    """Returns the markup of an image; None if it has no thumbnails.

    Args:
        image: The image.
        recipe: Its recipe; None if this process does not know it.
        url_of: Gives the URL of a thumbnail of the image.
    """
    family = same_picture(image, recipe)
    if not family:
        return None
    widths = _by_width(family)
    defaults = [each.default for each in widths]
    shown = max(family, key=lambda each: (-each.name.dpr, each.default.width)).default
    srcset = _srcset(defaults, url_of)
    # Without it, browsers would take every picture to be as wide as the window.
    sizes = f"auto, (max-width: {shown.width}px) 100vw, {shown.width}px"
    sources = "".join(
        f'<source type="{escape(kind)}" srcset="{escape(_srcset(files, url_of))}" sizes="{sizes}">'
        for kind, files in _sources(widths)
    )
    colour = average_colour(image.traits.placeholder) if image.traits else None
    style = f' style="background-color:{colour}"' if colour else ""
    picture = (
        f'<picture>{sources}<img src="{escape(url_of(shown))}" srcset="{escape(srcset)}" sizes="{sizes}" '
        f'width="{shown.width}" height="{shown.height}"{style} loading="lazy" decoding="async" alt=""></picture>'
    )
    return Markup(srcset, picture)


def _by_width(family: Iterable[Density]) -> Sequence[Density]:
    """Returns one of each width, the smallest file, from the narrowest on."""
    chosen: dict[int, Density] = {}
    for each in family:
        other = chosen.setdefault(each.default.width, each)
        if each.default.size_bytes < other.default.size_bytes:
            chosen[each.default.width] = each
    return [chosen[width] for width in sorted(chosen)]


def _sources(widths: Sequence[Density]) -> Iterable[tuple[str, Sequence[Thumbnail]]]:
    """Returns the further types that save bytes, with their files, the one with the smallest widest file first.

    A browser that takes a type can choose among its widths only. So it has the widest, and at least half of all.
    """
    found: Mapping[str, list[tuple[Thumbnail, Thumbnail]]] = defaultdict(list)
    for each in widths:
        for variant in each.variants:
            found[variant.content_type].append((variant, each.default))
    by_type = {
        kind: [variant for variant, _ in pairs]
        for kind, pairs in found.items()
        if pairs[-1][1] is widths[-1].default
        and 2 * len(pairs) >= len(widths)
        and sum(variant.size_bytes - default.size_bytes for variant, default in pairs) < 0
    }
    return sorted(by_type.items(), key=lambda item: item[1][-1].size_bytes)


def _srcset(files: Iterable[Thumbnail], url_of: Callable[[Thumbnail], str]) -> str:
    return ", ".join(f"{url_of(file)} {file.width}w" for file in files)
