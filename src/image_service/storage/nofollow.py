"""Opens files without following symbolic links: the service makes none, and one would lead out of the storage."""

import os
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
# Opening a named pipe would otherwise wait for a writer.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def open_below(root: Path, key: str) -> int:
    """Returns a descriptor of the file ``root/key`` for reading. Only ``root`` itself may be or contain links.

    Raises:
        OSError: from the file system; ELOOP or ENOTDIR where a part of the key is a link.
    """
    *folders, name = key.split("/")
    at = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(name, _READ, dir_fd=at)
    finally:
        os.close(at)
