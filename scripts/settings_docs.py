# ruff: noqa: INP001  (a program, not a package)
"""Writes docs/settings.md: every setting with its default and meaning.

Defaults and meanings come from ``Settings``, the groups and their order from the headings of .env.example.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from image_service.config import Settings
from image_service.domain.image import ImageFormat

ROOT: Final = Path(__file__).resolve().parents[1]
DOCUMENT: Final = ROOT / "docs" / "settings.md"
EXAMPLE: Final = ROOT / ".env.example"
COMPUTED: Final = {"decode_slots": "one per processor", "liveness_file": "a file in the folder for temporary files"}
"""Defaults that depend on the machine."""
HEADING: Final = re.compile(r"^# --- (.+?) -+$")
VARIABLE: Final = re.compile(r"^#([A-Z_]+)=")
INTRODUCTION: Final = """\
# Settings

<!-- Generated from src/image_service/config.py: do not edit, run `make docs`. -->

Settings are environment variables. An empty value counts as unset; white space around a value does not count. Values
are checked before anything starts: a program with an unusable value, such as one in quotes, exits with a sentence that
names the setting. A variable whose name differs from a setting's by one letter is warned of in the log.
[.env.example](../.env.example) has the same settings as a file for docker compose.
"""


def document() -> str:
    """Returns the text of docs/settings.md."""
    return "\n".join([INTRODUCTION, *_tables()])


def _tables() -> Iterator[str]:
    for heading, names in _groups().items():
        yield f"## {heading}\n"
        yield "| variable | default | range | meaning |"
        yield "|---|---|---|---|"
        for name in names:
            field = Settings.model_fields[name]
            yield f"| `{name.upper()}` | {_default(name, field)} | {_range(field)} | {_cell(field.description or '')} |"
        yield ""


def _groups() -> dict[str, list[str]]:
    """Returns the settings below each heading of .env.example.

    Raises:
        ValueError: A setting is missing there, or stands there twice.
    """
    groups: dict[str, list[str]] = {}
    names: list[str] = []
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if heading := HEADING.match(line):
            names = groups.setdefault(heading[1], [])
        elif (variable := VARIABLE.match(line)) and variable[1].lower() in Settings.model_fields:
            names.append(variable[1].lower())
    listed = sorted(name for group in groups.values() for name in group)
    if listed != sorted(Settings.model_fields):
        wrong = sorted({name for name in {*listed, *Settings.model_fields} if listed.count(name) != 1})
        raise ValueError(f"{EXAMPLE.name} does not list these settings exactly once: {', '.join(wrong)}")
    return {heading: group for heading, group in groups.items() if group}


def _default(name: str, field: FieldInfo) -> str:
    if name in COMPUTED:
        return COMPUTED[name]
    default = field.default
    if default is None:
        return "unset"
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        default = str(default).lower()
    elif isinstance(default, float):
        default = f"{default:g}"
    elif isinstance(default, frozenset):
        default = ",".join(sorted(default, key=[each.value for each in ImageFormat].index))
    elif isinstance(default, Collection) and not isinstance(default, str):
        default = ",".join(map(str, default))
    return f"`{default}`"


def _range(field: FieldInfo) -> str:
    """Returns the range of a number; nothing for other settings."""
    least = next((f"{bound.ge:,}" for bound in field.metadata if isinstance(bound, Ge)), "above 0")
    return next((f"{least} to {bound.le:,}" for bound in field.metadata if isinstance(bound, Le)), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
