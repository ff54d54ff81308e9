"""How TIFF files lay out the directory of a page (TIFF 6.0 §2; BigTIFF)."""

from dataclasses import dataclass
from struct import Struct
from typing import Final


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the first directory is found, and what it is made of."""

    order: str
    """``<`` or ``>``: the byte order of the whole file, as in ``struct``."""
    start: Struct
    """The beginning of the file, which ends with the position of the directory."""
    count: Struct
    """How many entries follow."""
    entry: Struct
    """Tag, type, number of values, and a field with them or with their position."""
    next: Struct
    """After the entries: where the directory of the next page is, or zero."""


def _classic(order: str) -> Layout:
    return Layout(order, Struct(f"{order}4xI"), Struct(f"{order}H"), Struct(f"{order}HHI4s"), Struct(f"{order}I"))


def _big(order: str) -> Layout:
    return Layout(order, Struct(f"{order}8xQ"), Struct(f"{order}Q"), Struct(f"{order}HHQ8s"), Struct(f"{order}Q"))


LAYOUTS: Final = {b"II*\0": _classic("<"), b"MM\0*": _classic(">"), b"II+\0": _big("<"), b"MM\0+": _big(">")}
"""By the first four bytes of the file."""
