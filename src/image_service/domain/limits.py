"""Default limits that several layers share."""

from typing import Final

MAX_FILE_SIZE: Final = 10 * 1024 * 1024
"""Size of an upload in bytes."""

MAX_PIXELS: Final = 50_000_000
"""Width times height of an image."""

DECODE_TIMEOUT: Final = 20.0
"""Elapsed seconds to render one image."""

DECODE_CPU_SECONDS: Final = 10
"""CPU seconds to render one image."""

DECODE_MEMORY: Final = 1024**3
"""Address space of one decoder process in bytes."""
