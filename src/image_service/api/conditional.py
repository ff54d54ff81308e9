"""Conditional requests and ranges (RFC 9110, sections 13 and 14)."""

import re
from typing import Final

from starlette.requests import Request

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def is_other_version(request: Request, etag: str) -> bool:
    """Whether ``If-Match`` is given and does not name this entity tag, compared strongly (section 13.1.1)."""
    tags = _tags(request, "if-match")
    return bool(tags) and tags != ["*"] and etag not in tags


def is_not_modified(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` names this entity tag, compared weakly (section 13.1.2)."""
    tags = _tags(request, "if-none-match")
    return tags == ["*"] or etag in (tag.removeprefix("W/") for tag in tags)


def requested_range(request: Request, etag: str, size: int) -> range | None:
    """Returns the positions of a single-range request, cut to the file's end; None for the whole file.

    The range starts at or beyond ``size`` where it cannot be satisfied. Several ranges, other units and malformed
    headers are ignored, as section 14.2 allows; so are ranges of another version of the file (``If-Range``, section
    13.1.5).
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if first and last:
        return range(int(first), min(int(last) + 1, size)) if int(first) <= int(last) else None
    if first:
        return range(int(first), size)
    if last:
        # A suffix: the last so many bytes. A suffix of none cannot be satisfied.
        return range(max(0, size - int(last)), size) if int(last) else range(size, size)
    return None


def _tags(request: Request, name: str) -> list[str]:
    """Returns the entity tags of all header lines of this name: a list may be sent in several (section 5.3)."""
    lines = request.headers.getlist(name)
    return [tag.strip() for tag in ",".join(lines).split(",")] if lines else []
