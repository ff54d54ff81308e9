"""Limits the freed memory that a decoder process keeps for its next image; glibc only.

By default glibc returns large blocks to the kernel at once, which then clears and maps new ones, page by page: a tenth
to a fifth of the time that decoding takes. Without a limit, a process would stay as large as its largest image made it.
"""

import ctypes
from contextlib import suppress
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_BLOCK: Final = 64 << 20
"""Larger blocks still come from the kernel; every plane of a picture of 12 megapixels is smaller."""
_KEPT: Final = 192 << 20
"""The most freed memory that is kept in all: as much as AVIF takes for such a picture."""


class _Usage(ctypes.Structure):
    """struct mallinfo2 of mallinfo(3)."""

    _fields_ = (("others", ctypes.c_size_t * 8), ("fordblks", ctypes.c_size_t), ("keepcost", ctypes.c_size_t))
    fordblks: int
    """Bytes that are free."""


def _find() -> ctypes.CDLL | None:
    """Return the C library, if it has the functions (glibc 2.33)."""
    library = ctypes.CDLL(None)
    with suppress(AttributeError):
        library.mallinfo2.restype = _Usage
        library.malloc_trim.argtypes = (ctypes.c_size_t,)
        library.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
        return library
    return None


_library = _find()


def keep_freed_memory() -> None:
    """Keep freed memory from now on."""
    if _library is not None:
        _library.mallopt(_MMAP_THRESHOLD, _BLOCK)
        _library.mallopt(_TRIM_THRESHOLD, _KEPT)


def trim_excess() -> None:
    """Return freed memory beyond the limit to the kernel. It takes milliseconds: call it between images."""
    if _library is not None and _library.mallinfo2().fordblks > _KEPT:
        _library.malloc_trim(0)
