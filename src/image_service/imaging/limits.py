"""What one rendering may cost."""

from dataclasses import dataclass
from typing import Final

from image_service.domain.image import DEFAULT_FORMATS, ImageFormat
from image_service.imaging.inspect import DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderLimits:
    """Bounds on a decoder process; a file that needs more of anything is given up."""

    wall_seconds: float = 20.0
    """Time for one image, after which the process is killed."""

    cpu_seconds: int = 10
    """Processor time for one image, rounded up by at most one second."""

    niceness: int = 0
    """How far the process stands back where processors are short, from 0 to 19."""

    memory_bytes: int = 1 << 30
    """Address space of the process."""

    file_bytes: int = 64 << 20
    """Size of any file it writes."""

    open_files: int = 64
    """Descriptors it may hold."""

    max_pixels: int = DEFAULT_MAX_PIXELS
    """Width times height of an image."""

    formats: tuple[ImageFormat, ...] = tuple(sorted(DEFAULT_FORMATS))
    """The only ones that reach a decoder, whatever was accepted before."""

    truncated: bool = False
    """Whether an incomplete file is rendered as far as it goes."""

    readable: tuple[str, ...] = ("/",)
    """Folders it may read below, where the kernel can see to it; of what it is itself made of it can always read."""

    writable: tuple[str, ...] = ("/",)
    """Folders it may write below, where the kernel can see to it."""

    require_sandbox: bool = False
    """Whether a kernel that cannot shut the process in is refused."""

    jobs_per_child: int = 500
    """Images after which a process is replaced by a fresh one, so that nothing in it grows for ever."""

    start_seconds: float = 30.0
    """Time for a fresh process to be ready."""

    def __post_init__(self) -> None:
        # JSON, in which they travel, makes plain strings of them.
        object.__setattr__(self, "formats", tuple(map(ImageFormat, self.formats)))


DEFAULT_LIMITS: Final = RenderLimits()
"""What the service's settings say unless they are changed."""
