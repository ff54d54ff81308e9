"""Every key and list element of a TOML document has its line, however the document is written."""

import json
import tomllib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.config.toml_lines import Lines, Path

DEEP = 3
SCALARS = [
    *("1", "-0.5e3", "true", "inf", "1979-05-27 07:32:00", "0x_ff".replace("_", ""), '""', "''"),
    *('"a # b"', '"\\" = ] } \\\\"', "'C:\\'", '"[a]"', "'''\n[k0]\nk1 = 2\n'''", "'''it''s'''''", "''''one'''"),
    *('"""\nk0 = 1\n\\"""\n"""', '""""quoted"""""', '"""\\\n   folded ""x"" """'),
]
"""Values that are hard to skip: with brackets, quotes, keys or several lines in them."""


class Writer:
    """Writes a random document, and records where it puts each key and element."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.text = ""
        self.count = 0
        self.lines: dict[Path, int] = {}
        self._table(())
        self.text += rng.choice(["", "\n", "# the end", "  "])

    def _table(self, path: Path, depth: int = 0) -> None:
        for _ in range(self.rng.randint(0, 3)):
            self._noise()
            self._pair(path)
            self.text += self.rng.choice(["\n", " # k0 = [1]\n", "\n\n"])
        for _ in range(self.rng.randint(0, 2 if depth < DEEP else 0)):
            keys = [self._fresh() for _ in range(self.rng.randint(1, 2))]
            repeated = self.rng.choice([0, 0, 1, 2])
            for position in range(repeated or 1):
                self._noise()
                line = self._line()
                names = [key for key in (*path, *keys) if isinstance(key, str)]
                header = self._space(".").join(map(self._quoted, names))
                self.text += f"[[{header}]]" if repeated else f"[{header}]"
                full = self._marked(path, keys, line)
                self.text += self.rng.choice(["\n", "  # [k0]\n"])
                if repeated:
                    full = (*full, position)
                    self.lines[full] = line
                self._table(full, depth + 1)

    def _pair(self, path: Path, depth: int = 0) -> None:
        keys = [self._fresh() for _ in range(self.rng.choice([1, 1, 2, 3]))]
        full = self._marked(path, keys, self._line())
        self.text += self._space(".").join(map(self._quoted, keys)) + self.rng.choice(["=", " = ", "\t=  "])
        self._value(full, depth)

    def _value(self, path: Path, depth: int) -> None:
        kind = self.rng.randint(0, 5) if depth < DEEP else 0
        if kind == 5:
            self.text += "{ "
            for position in range(self.rng.randint(0, 3)):
                self.text += ", " if position else ""
                self._pair(path, depth + 1)
            self.text += " }"
        elif kind == 4:
            self.text += "["
            count = self.rng.randint(0, 3)
            for position in range(count):
                self._noise()
                self.lines[*path, position] = self._line()
                self._value((*path, position), depth + 1)
                self._noise()
                self.text += "," if position < count - 1 else self.rng.choice([",", ""])
            self._noise()
            self.text += "]"
        else:
            self.text += self.rng.choice(SCALARS)

    def _marked(self, path: Path, keys: list[str], line: int) -> Path:
        for key in keys:
            path = (*path, key)
            self.lines.setdefault(path, line)
        return path

    def _fresh(self) -> str:
        self.count += 1
        return self.rng.choice(["k{}", "{}", "a-b_{}", "with space.{}", "#{}", "é{}", 'quote"{}']).format(self.count)

    def _quoted(self, key: str) -> str:
        bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
        ways = [json.dumps(key), json.dumps(key, ensure_ascii=False), f"'{key}'"]
        return self.rng.choice([*ways, key, key] if bare else ways)

    def _space(self, text: str) -> str:
        return self.rng.choice([text, f" {text}\t"])

    def _noise(self) -> None:
        self.text += self.rng.choice(["", "", "\n", "  ", "# k0 = ] } '''\n", "\t#\n\n"])

    def _line(self) -> int:
        return self.text.count("\n") + 1


@given(st.randoms(use_true_random=False))
def test_every_key_and_element_has_its_line(rng: Random) -> None:
    written = Writer(rng)
    data = tomllib.loads(written.text)
    lines = Lines(written.text)
    for path, line in written.lines.items():
        value: object = data
        for key in path:
            assert isinstance(value, dict | list)
            value = value[key]  # type: ignore[index]
        assert lines.of(path) == line, (path, written.text)
        assert lines.of((*path, "not there", 3)) == line


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("", ("recipes", "avatar"), 1),
        ("a = 1", ("a",), 1),
        ("\n\n[a]\n[a.b]\nc = 1", ("a", "b", "c"), 5),
        ("[a.b]\n[a]\nc = 1", ("a",), 2),
        ("[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 1", ("a", 1, "c", "d"), 6),
        ("[[a]]\n[[a.b]]\n[[a]]\n[[a.b]]\n[[a.b]]", ("a", 1, "b", 1), 5),
        ("a = {b = [1, {c = 2}]}", ("a", "b", 1, "c"), 1),
        ("a = [\n  1, # [\n  2,\n]", ("a", 1), 3),
        ("a = '''\nb = 1\n'''\nb = 1", ("b",), 4),
        ("a.b = 1\na.c = 2", ("a", "c"), 2),
        ("a.b = 1\na.c = 2", ("a",), 1),
        ('"\\u0061" = 1', ("a",), 1),
        ("a = 1979-05-27T07:32:00Z # b\nb = 1", ("b",), 2),
    ],
)
def test_line_of(text: str, path: Path, line: int) -> None:
    tomllib.loads(text)
    assert Lines(text).of(path) == line


@pytest.mark.parametrize("text", ["= 1", "\n\n] = 1", "a = '", 'a = "\n"'])
def test_what_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line \d is no TOML$"):
        Lines(text)
