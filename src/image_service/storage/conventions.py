"""Conventions that all storages share: valid keys, reserved names and the size of a piece."""

from typing import Final

PIECE_BYTES: Final = 256 * 1024
"""Maximum size of one piece of ``read``."""

SCRATCH: Final = "scratch"
"""The local folder for scratch directories; no key begins with it."""
OWNER: Final = ".owner"
"""The file that names the database the storage belongs to."""


def check_key(key: str) -> None:
    """Check that a key is relative, and has no empty part and none that starts with a dot.

    Raises:
        ValueError: it is not a valid key.
    """
    parts = key.split("/")
    if parts[0] == SCRATCH or "\0" in key or any(not part or part.startswith(".") for part in parts):
        raise ValueError(f"not a storage key: {key!r}")


def check_prefix(prefix: str) -> None:
    """Check that a valid key can start with the prefix.

    Raises:
        ValueError: no key can.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))
