"""The ``Prefer`` header (RFC 7240): for how long a client would rather wait for a result than get a 202 at once."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

HEADER: Final = "Prefer"
APPLIED: Final = "Preference-Applied"

_MOST_DIGITS: Final = 9
_PIECE: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[^",;]+|.', re.DOTALL)
"""A quoted string, what is outside of one, or a separator. Each begins with a character of its own: no backtracking."""
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SPACE: Final = " \t"

PARAMETER: Final[dict[str, Any]] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "`wait=10`: answer when the image is DONE or in ERROR, with 200 and its document, or after ten "
    "seconds as usual. A long time is shortened: `Preference-Applied` says what was applied. It is missing if too many "
    "requests wait already: then the answer comes at once.",
    "schema": {"type": "string"},
    "example": "wait=10",
}
"""For the OpenAPI description. By hand, because the header is a list that may have several lines."""


def wait_of(lines: Iterable[str]) -> int | None:
    """Return the seconds of the preference ``wait``; None if it is not given, or malformed.

    Of several the first one counts (section 2); what else the header holds is ignored.

    Args:
        lines: The values of all lines of the header.
    """
    for preference in _preferences(lines):
        name, _, value = preference.partition("=")
        if name.strip(_SPACE).lower() == "wait":
            return _seconds(value.strip(_SPACE))
    return None


def _preferences(lines: Iterable[str]) -> Iterator[str]:
    """Yield each preference without its parameters: what comes before the first semicolon between two commas."""
    for line in lines:
        preference, in_parameters = "", False
        for piece in _PIECE.findall(line):
            if piece == ",":
                yield preference
                preference, in_parameters = "", False
            elif piece == ";":
                in_parameters = True
            elif not in_parameters:
                preference += piece
        yield preference


def _seconds(value: str) -> int | None:
    """Return a number of seconds, or one that is larger than any limit; None if the value is not a number."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    if not (value.isascii() and value.isdigit()):
        return None
    significant = value.lstrip("0") or "0"
    return int(significant) if len(significant) <= _MOST_DIGITS else 10**_MOST_DIGITS
