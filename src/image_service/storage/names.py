"""What may be the key of a stored file, whatever stores it."""

from typing import Final

SCRATCH: Final = "scratch"
"""The local folder that holds what is not stored yet; no key begins with it."""


def check(key: str) -> None:
    """Refuse what is no key: it is relative, and has no empty part and none that starts with a dot.

    Raises:
        ValueError: this is none.
    """
    parts = key.split("/")
    if parts[0] == SCRATCH or "\0" in key or any(not part or part.startswith(".") for part in parts):
        raise ValueError(f"not a storage key: {key!r}")


def check_prefix(prefix: str) -> None:
    """Refuse what no key starts with.

    Raises:
        ValueError: this is such a thing.
    """
    if prefix:
        check(prefix.removesuffix("/"))
