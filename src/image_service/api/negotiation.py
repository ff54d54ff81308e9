"""Which types a client names in its ``Accept`` header (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from starlette.requests import Request

_MAX_ACCEPT: Final = 2048
"""Characters of all Accept headers of a request: browsers send some 150. A longer one names nothing."""
_MAX_MEMBERS: Final = 64
_TYPE: Final = re.compile(r"[a-z]{1,16}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}", re.ASCII)
_QUALITY: Final = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)


def named_types(request: Request) -> frozenset[str]:
    """Returns the types that the client accepts by their full names, in lower case.

    ``*/*`` and ``image/*`` name none: browsers send them whatever they can show. A type of quality 0 is refused,
    wherever else it is named. Members that are malformed, or have other parameters than the quality, are ignored.
    """
    lines = request.headers.getlist("accept")
    if sum(map(len, lines)) > _MAX_ACCEPT:
        return frozenset()
    accepted, refused = set[str](), set[str]()
    members = [member for line in lines for member in _members(line)]
    for member in members[:_MAX_MEMBERS]:
        kind, *parameters = [each.strip(" \t") for each in member.lower().split(";")]
        if not _TYPE.fullmatch(kind):
            continue
        quality = _quality(parameters)
        if quality is not None:
            (accepted if quality else refused).add(kind)
    return frozenset(accepted - refused)


def _quality(parameters: Sequence[str]) -> float | None:
    """Returns the quality that a member gives its type; None if the member is ignored."""
    if not parameters:
        return 1
    name, equals, value = parameters[0].partition("=")
    # What follows the quality are extensions, which RFC 9110 has dropped: they do not change the type.
    if name.strip(" \t") != "q" or not equals or not _QUALITY.fullmatch(value.strip(" \t")):
        return None
    return float(value)


def _members(line: str) -> Iterator[str]:
    """Yields the members of a list; a comma in a quoted string separates none."""
    if '"' not in line:
        yield from line.split(",")
        return
    start, quoted, escaped = 0, False, False
    for at, character in enumerate(line):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            yield line[start:at]
            start = at + 1
    yield line[start:]
