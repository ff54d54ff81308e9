"""The tree speaks plain words: terms that the glossary of docs/architecture.md replaces do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "harness", "benchmarks", "migrations", "docs", "deploy", "k8s", "scripts", ".github", ".ci")
FILES = ("README.md", "Makefile", ".env.example", "pyproject.toml")
SUFFIXES = {".py", ".md", ".yml", ".yaml", ".toml", ".sh", ".json", ".patch", ".example", ""}

# Each with what to say instead.
RETIRED = {
    r"leisure": "idle",
    r"patien(t|ce)": "timeout, budget",
    r"wish(es|ed)?": "request",
    r"goodbye": "close",
    r"last (words|breath)": "stderr tail; shutdown",
    r"nursery": "process group",
    r"nemesis": "fault injector",
    r"signs? of life": "liveness, heartbeat, lease extension",
    r"hurr(y|ied)": "make due",
    r"put off|putting off": "postpone",
    r"shut in|shuts in|shut them in": "sandbox",
    r"told of|was told|is told|are told": "notified, reported",
    r"somebody|someone else's|(?<![\"`])nobody(?![\"`])|whoever": "name the role: client, worker, operator",
    r"let(s|ting)? go of": "delete, release",
    r"mend(s|ed|ing)?": "repair, fix",
    r"(is|be|are|was|were) away": "unavailable",
    r"anew": "again",
    r"takes? turns": "serialize",
    r"to blame": "cause",
    r"in vain": "without success",
    r"bec(omes|ame) of": "result, outcome",
    r"what has come of": "result",
    r"comes? round": "runs",
    r"sees? to it": "ensure",
    r"live to": "(say what failed)",
    r"strangers?": "client, untrusted",
    r"playing": "env",
    r"stories": "scenarios",
}
RETIRED_WORDS = re.compile("|".join(rf"(?P<r{i}>\b(?:{word})\b)" for i, word in enumerate(RETIRED)), re.IGNORECASE)


def sources() -> list[Path]:
    found = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in SUFFIXES]
    return [path for path in found if "__pycache__" not in path.parts and path != Path(__file__)]


def retired_words_in(path: Path) -> list[str]:
    text = path.read_text()
    # Names are words too: an underscore or a hyphen joins what a space would.
    return [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}: "
        f"say {list(RETIRED.values())[int(str(match.lastgroup)[1:])]}"
        for match in RETIRED_WORDS.finditer(text.replace("_", " ").replace("-", " "))
    ]


def test_no_retired_word_is_used() -> None:
    found = [line for path in sources() for line in retired_words_in(path)]
    assert not found, "\n".join(found)


def test_a_retired_word_is_found_in_names_and_in_prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    source = tmp_path / "module.py"
    source.write_text("# It is\n# postponed.\ndef _put_off(): ...\n# Hurried, by whoever asks.\n")
    assert [line.rpartition(": say")[0] for line in retired_words_in(source)] == [
        "module.py:3: 'put off'",
        "module.py:4: 'Hurried'",
        "module.py:4: 'whoever'",
    ]
