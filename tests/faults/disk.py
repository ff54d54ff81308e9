"""A small private disk that can be filled at once."""

import os
import subprocess
from pathlib import Path

from harness.processes import ProcessGroup, ServerError, wait_until

MEGABYTES = 2048
"""More than any run needs; only used space takes memory."""
_START_LIMIT = 10.0
_RESIZE_LIMIT = 5.0


class Disk:
    """A folder that is a tmpfs for processes started through ``entrance``.

    Without root it needs user namespaces, which the kernel or a container may forbid. Then it is an ordinary folder
    and cannot be filled.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._group = ProcessGroup(folder=folder.parent)
        self._keeper = 0
        """The process that owns the mount namespace."""

    def start(self) -> None:
        """Mount the disk."""
        self.folder.mkdir(parents=True)
        as_root: tuple[str, ...] = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        script = 'mount -t tmpfs -o "size=$0" tmpfs "$1" && echo mounted && exec sleep infinity'
        command = ("unshare", "--mount", *as_root, "sh", "-c", script, f"{MEGABYTES}m", str(self.folder))
        keeper = self._group.spawn(*command, env={})
        wait_until(lambda: "mounted" in self._group.tail() or keeper.poll() is not None, timeout=_START_LIMIT)
        if keeper.poll() is None:
            self._keeper = keeper.pid

    def close(self) -> None:
        """Remove the disk and its content."""
        self._group.kill()

    @property
    def small(self) -> bool:
        """Whether the disk can be filled."""
        return self._keeper > 0

    @property
    def entrance(self) -> tuple[str, ...]:
        """The command prefix that enters the mount namespace."""
        if not self.small:
            return ()
        as_root = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        return "nsenter", f"--target={self._keeper}", "--mount", *as_root, "--"

    @property
    def outside(self) -> Path:
        """The folder as a path outside the mount namespace."""
        return Path(f"/proc/{self._keeper}/root{self.folder}") if self.small else self.folder

    def fill(self) -> None:
        """Fill the disk by shrinking it to its used size."""
        # Retried: a write in between makes the new size too small.
        if not wait_until(lambda: self._resize(self._used()), timeout=_RESIZE_LIMIT):
            raise ServerError("the disk cannot be made smaller")

    def empty(self) -> None:
        """Restore the disk's size."""
        if not self._resize(MEGABYTES << 20):
            raise ServerError("the disk cannot be made larger again")

    def _used(self) -> int:
        state = os.statvfs(self.outside)
        return max(1, (state.f_blocks - state.f_bfree) * state.f_frsize)  # a size of 0 would mean no limit

    def _resize(self, size: int) -> bool:
        command = [*self.entrance, "mount", "--options-mode=ignore", "-o", f"remount,size={size}", str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0  # noqa: S603  (a constant command)
