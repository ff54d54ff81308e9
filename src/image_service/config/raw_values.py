"""Cleans what the environment has for the settings, and warns of names that no setting has."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff]")
"""With them the invisible characters that copying from a page may bring along."""
_QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d"


def cleaned(values: Mapping[str, object]) -> dict[str, object]:
    """Returns the values without white space around them, and without those that are empty then.

    Raises:
        ValueError: a value is in quotes or contains a control character. The message names the setting, not the value.
    """
    texts = {name: value.strip() for name, value in values.items() if isinstance(value, str)}
    if problems := [f"{name.upper()} is not usable: {problem}" for name, problem in _problems(texts)]:
        raise ValueError("; ".join(problems))
    return {name: value for name, value in {**values, **texts}.items() if value != ""}


def misspelled(names: Iterable[str], settings: Iterable[str]) -> dict[str, str]:
    """Returns, for each name that differs from a setting's by one letter, that setting."""
    known = {setting.upper() for setting in settings}
    unknown = {name for name in names if name.upper() not in known}
    return {name: setting for name in sorted(unknown) for setting in sorted(known) if _near(name.upper(), setting)}


def _problems(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in texts.items():
        if text and (text[0] in _QUOTES or text[-1] in _QUOTES):
            yield name, "remove the quotes around its value, which are taken for a part of it"
        elif _CONTROL.search(text):
            yield name, "its value contains a line break or another control character: remove it"


def _near(name: str, setting: str) -> bool:
    """Whether one letter was changed, left out or added, or two neighbours were exchanged."""
    start = next((at for at, (a, b) in enumerate(zip(name, setting, strict=False)) if a != b), None)
    if start is None:
        return abs(len(name) - len(setting)) == 1
    a, b = name[start:], setting[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[2:] == b[2:] and a[:2] == b[1::-1])
