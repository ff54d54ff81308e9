"""Header values with parameters: ``multipart/form-data; boundary=x`` and ``form-data; name="file"``.

As lenient as senders are different, in one pass over the value.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

# Each finds one character: a pattern that repeats something can take quadratic time on a value made for it.
_END_OF_NAME: Final = re.compile("[=;]")
_END: Final = re.compile(";")
_QUOTE_OR_ESCAPE: Final = re.compile(r'["\\]')


def parse_parameters(value: str) -> tuple[str, Mapping[str, Sequence[str]]]:
    r"""Returns the value before the first semicolon, and its parameters, each with all of its values.

    Names are in lower case. A value in quotation marks may contain anything, ``\`` before a character takes that
    literally (RFC 9110, 5.6.4), and the end of the header closes it. Any other ends at the next semicolon, whatever
    characters it has: senders leave out the quotation marks that RFC 2045 demands around ``=``, ``:`` or ``/``.
    """
    main, semicolon, _ = value.partition(";")
    parameters: dict[str, list[str]] = {}
    at = len(main) + len(semicolon)
    while at < len(value):
        name_end = _first_of(_END_OF_NAME, value, at)
        name = value[at:name_end].strip().lower()
        at = name_end + 1
        if value[name_end : name_end + 1] != "=":
            continue
        while value[at : at + 1] in {" ", "\t"}:
            at += 1
        if value[at : at + 1] == '"':
            content, at = _quoted(value, at + 1)
            at = _first_of(_END, value, at) + 1
        else:
            end = _first_of(_END, value, at)
            content, at = value[at:end].strip(), end + 1
        if name:
            parameters.setdefault(name, []).append(content)
    return main.strip().lower(), parameters


def _first_of(characters: re.Pattern[str], value: str, start: int) -> int:
    """Returns the position of the first of these characters from a position on; the length if there is none."""
    found = characters.search(value, start)
    return found.start() if found else len(value)


def _quoted(value: str, start: int) -> tuple[str, int]:
    """Returns the content of a quoted string that begins before ``start``, and the position after it."""
    pieces = []
    at = start
    while (end := _first_of(_QUOTE_OR_ESCAPE, value, at)) < len(value) and value[end] == "\\":
        pieces.append(value[at:end] + value[end + 1 : end + 2])
        at = end + 2
    pieces.append(value[at:end])
    return "".join(pieces), end + 1
