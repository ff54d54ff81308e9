"""The file that an upload is written to while it is received."""

import hashlib
from io import FileIO
from pathlib import Path

from image_service.ports import no_links


class ScratchFile:
    """The file that an upload is written to. ``write`` blocks, so it is called in a thread.

    Args:
        path: Where it is; the first write creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._file: FileIO | None = None

    @property
    def sha256(self) -> str:
        """The digest of what was written so far, in hex digits."""
        return self._digest.hexdigest()

    def write(self, data: bytearray) -> None:
        """Append to the file, which the first call creates."""
        if self._file is None:
            self._file = FileIO(self.path, "wb", opener=no_links)
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
