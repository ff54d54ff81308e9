"""Where the service and the browser show different pictures on purpose, and why."""

from typing import Final

_REFUSED: Final = "The browser refuses the whole file; the service ignores what is malformed, and shows the rest."

DIFFERENCES: Final[dict[str, str]] = {
    "png-*-cicp-p3-matrix-one": _REFUSED,
    "png-*-cicp-matrix-over-*": _REFUSED,
    "png-*-cicp-p3-range-two": _REFUSED,
    "png-*-gama-1.0-chrm-white-y-zero": "The browser shows nothing but black; the service ignores such a white point.",
    "jpeg-cmyk-8-icc-press": "The browser's arithmetic gives the greys of this table a tint that it does not have.",
    "avif-rgb-8-icc-cut-off*": _REFUSED,
    "avif-rgb-8-icc-for-grey*": _REFUSED,
    "avif-rgb-8-icc-for-cmyk": _REFUSED,
    "avif-rgb-8-nclx-log": _REFUSED,
    "avif-rgb-8-nclx-unknown-matrix": "The service's decoder refuses a matrix that no standard defines.",
    "avif-rgba-soft-8-nclx-srgb": (
        "The browser takes alpha for values from 16 to 235, although the file says 0 to 255, as AVIF requires (§4)."
    ),
    "avif-rgb-8-nclx-chroma-derived": "The browser ignores code points beside a matrix that is derived from them.",
}
"""The reason by a pattern of the case's name, as in file names."""
