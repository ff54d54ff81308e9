"""Limits on images and on the processes that render them."""

from dataclasses import dataclass
from typing import Final

from image_service.domain import limits
from image_service.domain.image import DEFAULT_FORMATS, ImageFormat
from image_service.domain.recipe import OutputFormat

MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""Larger ICC profiles are ignored; a press profile with fine tables has about 2 MB."""

MAX_FRAMES: Final = 1000
"""Of an animation that is kept. One that exceeds any of these is shown by its first frame."""
MAX_FRAMES_PIXELS: Final = 400_000_000
"""Pixels of all of its frames and, for each, of its canvas: what is decoded and drawn."""
MAX_ANIMATION_PIXELS: Final = 50_000_000
"""Pixels of all frames of an animated output."""
MAX_ANIMATION_BYTES: Final = 16 << 20
"""Size of an animated output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderLimits:
    """Limits on rendering one image in a decoder process; an image that exceeds any of them fails."""

    wall_seconds: float = limits.DECODE_TIMEOUT
    """Time for one image, after which the process is killed."""

    cpu_seconds: int = limits.DECODE_CPU_SECONDS
    """Processor time for one image, rounded up by at most one second."""

    niceness: int = 0
    """Scheduling niceness of the process, from 0 to 19."""

    memory_bytes: int = limits.DECODE_MEMORY
    """Address space of the process."""

    file_bytes: int = 64 << 20
    """Size of any thumbnail."""

    open_files: int = 64
    """Descriptors it may hold."""

    max_pixels: int = limits.MAX_PIXELS
    """Width times height of an image."""

    formats: tuple[ImageFormat, ...] = tuple(sorted(DEFAULT_FORMATS))
    """The only formats that reach a decoder, whatever was accepted before."""

    outputs: tuple[OutputFormat, ...] = ()
    """The formats of outputs whose encoders are loaded at the start, before the sandbox is entered: those of all
    recipes. Others are loaded when they are needed."""

    truncated: bool = False
    """Whether an incomplete file is rendered as far as it goes."""

    readable: tuple[str, ...] = ("/",)
    """Folders below which it may read, where the kernel enforces that; its own program stays readable."""

    writable: tuple[str, ...] = ("/",)
    """Folders below which it may write, where the kernel enforces that. The service gives none: thumbnails come back
    with the reply. If it is empty, no file can be opened for writing even where only seccomp is available."""

    require_sandbox: bool = False
    """Whether starting fails on a kernel without the sandbox."""

    jobs_per_child: int = 500
    """Images after which a process is replaced, so that no leak in it grows without end."""

    start_seconds: float = 30.0
    """Time for a new process to be ready."""

    def __post_init__(self) -> None:
        # They travel as JSON, which turns formats into plain strings.
        object.__setattr__(self, "formats", tuple(map(ImageFormat, self.formats)))
        object.__setattr__(self, "outputs", tuple(map(OutputFormat, self.outputs)))


DEFAULT_LIMITS: Final = RenderLimits()
"""The limits that the service's default settings give."""
