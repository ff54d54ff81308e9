"""The memory that a process may still have."""

import mmap


def is_available(size: int) -> bool:
    """Whether the process may have so many bytes more: libraries that fail to get theirs report damage, or abort."""
    try:
        mmap.mmap(-1, size).close()
    except OSError:
        return False
    return True
