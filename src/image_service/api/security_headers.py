"""Headers that limit what a browser does with a response."""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

NOSNIFF: Final[Mapping[str, str]] = {"X-Content-Type-Options": "nosniff"}
"""The browser must take the content for what Content-Type says, whatever its bytes look like."""

INERT: Final[Mapping[str, str]] = {"Content-Security-Policy": "default-src 'none'; sandbox", **NOSNIFF}
"""For content that is no page: opened as one, it runs nothing, loads nothing and belongs to no site."""


def for_page(inline_script: str, *, reachable: str = "") -> Mapping[str, str]:
    """Returns the headers of a page that loads its own files and runs one script of its text.

    Args:
        inline_script: The script, exactly as between its tags.
        reachable: Origins, besides its own, that the page may send requests to.
    """
    digest = b64encode(sha256(inline_script.encode()).digest()).decode()
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' 'sha256-{digest}'",
        "style-src": "'self' 'unsafe-inline'",  # Swagger UI sets style attributes
        "img-src": "'self' data: blob:",  # its icons, and the images that it shows as responses
        "connect-src": f"'self' {reachable}".rstrip(),
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {"Content-Security-Policy": "; ".join(" ".join(rule) for rule in policy.items()), **NOSNIFF}
