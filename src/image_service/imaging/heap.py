"""How much freed memory a decoder process keeps for its next image; only the C library of GNU can be told.

By default it gives large blocks back to the kernel at once, which then clears and maps others, page by page: a tenth to
a fifth of the time that decoding takes. Keeping everything would leave a process as large as its largest image made it.
"""

import ctypes
from contextlib import suppress
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_BLOCK: Final = 64 << 20
"""Larger blocks come from the kernel all the same: no plane of a picture of 12 megapixels is."""
_KEPT: Final = 192 << 20
"""Freed memory that is kept, all in all: what AVIF takes for such a picture."""


class _Usage(ctypes.Structure):
    """struct mallinfo2 of mallinfo(3)."""

    _fields_ = (("others", ctypes.c_size_t * 8), ("fordblks", ctypes.c_size_t), ("keepcost", ctypes.c_size_t))
    fordblks: int
    """Bytes that are free."""


def _find() -> ctypes.CDLL | None:
    """The C library, if it has what it takes (glibc 2.33)."""
    library = ctypes.CDLL(None)
    with suppress(AttributeError):
        library.mallinfo2.restype = _Usage
        library.malloc_trim.argtypes = (ctypes.c_size_t,)
        library.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
        return library
    return None


_library = _find()


def keep_freed_memory() -> None:
    """Have freed memory kept from now on."""
    if _library is not None:
        _library.mallopt(_MMAP_THRESHOLD, _BLOCK)
        _library.mallopt(_TRIM_THRESHOLD, _KEPT)


def give_back_excess() -> None:
    """Give freed memory back if there is more of it than is kept. Call it between images: it takes milliseconds."""
    if _library is not None and _library.mallinfo2().fordblks > _KEPT:
        _library.malloc_trim(0)
