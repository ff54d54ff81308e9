"""Finds the line of each key and value in a TOML document: ``tomllib`` returns values without their places."""

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]
"""The keys and list positions that lead to a value, such as ``("recipes", "avatar", "presets", 0, "fit")``."""

_BLANK: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACES: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[^\s.=\]\"']+")
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")
# A string in three quotes may end with two more of them, which belong to it.
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


class Lines:
    """The lines of a document's keys and values."""

    def __init__(self, document: str) -> None:
        """Read a document that ``tomllib`` accepts, with the line breaks of Unix.

        Raises:
            ValueError: ``tomllib`` does not accept it.
        """
        self._lines = _Scanner(document).scan()

    def of(self, path: Path) -> int:
        """Returns the line, from 1, of a key or list element; where there is none, that of what should contain it."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]


class _Scanner:
    """Reads a valid document once, from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._lines: dict[Path, int] = {(): 1}
        self._arrays: dict[Path, int] = {}
        """The last position in each array of tables."""

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._next() < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _header(self) -> Path:
        line, brackets = self._here(), 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        *parents, last = self._key()
        self._at += brackets
        path: Path = ()
        for key in parents:
            path = (*path, key)
            self._lines.setdefault(path, line)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        path = (*path, last)
        if brackets == 1:
            self._lines[path] = line
            return path
        self._lines.setdefault(path, line)
        self._arrays[path] = self._arrays.get(path, -1) + 1
        path = (*path, self._arrays[path])
        self._lines[path] = line
        return path

    def _pair(self, table: Path) -> None:
        line, path = self._here(), table
        for key in self._key():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._skip(_SPACES)
        self._value(path)

    def _key(self) -> list[str]:
        """Read a key and the spaces around it."""
        keys = []
        while True:
            self._skip(_SPACES)
            if self._text[self._at] in "\"'":
                keys.append(tomllib.loads(f"key = {self._skip(_STRING)}")["key"])
            else:
                keys.append(self._skip(_BARE_KEY))
            self._skip(_SPACES)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        match self._text[self._at]:
            case '"' | "'":
                self._skip(_STRING)
            case "[":
                self._at += 1
                position = 0
                while self._text[self._next()] != "]":
                    self._lines[*path, position] = self._here()
                    self._value((*path, position))
                    position += 1
                    self._comma()
                self._at += 1
            case "{":
                self._at += 1
                while self._text[self._next()] != "}":
                    self._pair(path)
                    self._comma()
                self._at += 1
            case _:
                self._skip(_SCALAR)

    def _comma(self) -> None:
        if self._text[self._next()] == ",":
            self._at += 1

    def _next(self) -> int:
        """Skip spaces, line breaks and comments; returns the place of what follows."""
        self._skip(_BLANK)
        return self._at

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"line {self._here()} is no TOML")
        self._at = found.end()
        return found[0]

    def _here(self) -> int:
        # Each line break is counted once.
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line
