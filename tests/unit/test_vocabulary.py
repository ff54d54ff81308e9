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
# In lower case, and without groups: so it is searched for ten times as fast.
RETIRED_WORDS = re.compile(rf"\b(?:{'|'.join(RETIRED)})\b")


def sources() -> list[Path]:
    found = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in SUFFIXES]
    return [path for path in found if "__pycache__" not in path.parts and path != Path(__file__)]


def retired_words_in(path: Path) -> list[str]:
    # Names are words too: an underscore or a hyphen joins what a space would.
    text = path.read_text().lower().replace("_", " ").replace("-", " ")
    name = path.relative_to(ROOT)
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}: say {instead_of(match[0])}"
        for match in RETIRED_WORDS.finditer(text)
    ]


def instead_of(found: str) -> str:
    return next(instead for word, instead in RETIRED.items() if re.fullmatch(word, found))


def test_no_retired_word_is_used() -> None:
    found = [line for path in sources() for line in retired_words_in(path)]
    assert not found, "\n".join(found)


def test_a_retired_word_is_found_in_names_and_in_prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    source = tmp_path / "module.py"
    source.write_text("# It is\n# postponed.\ndef _put_off(): ...\n# Hurried, by whoever asks.\n")
    assert [line.rpartition(": say")[0] for line in retired_words_in(source)] == [
        "module.py:3: 'put off'",
        "module.py:4: 'hurried'",
        "module.py:4: 'whoever'",
    ]
