# ruff: noqa: INP001  (a program, not a package)
"""Checks that the pinned requirement files match pyproject.toml; `make requirements` updates them."""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DECODERS = {"cykooz-resizer", "kornia-rs", "numpy", "pillow"}
"""Packages that the API's image leaves out."""
FORMAT_EXTRAS = ("heic", "jxl")
"""Extras that contain the decoder of a format."""
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]+\])?==([^\s;]+)", re.MULTILINE)


def problems() -> list[str]:
    """Returns pins that are missing, out of bounds, different between the files, or not allowed."""
    project = tomllib.loads(Path("pyproject.toml").read_text())
    program, extras = project["project"]["dependencies"], project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    needed = {
        "requirements.txt": program,
        "requirements-api.txt": [each for each in program if canonicalize_name(Requirement(each).name) not in DECODERS],
        **{f"requirements-{extra}.txt": extras[extra] for extra in FORMAT_EXTRAS},
        "requirements-dev.txt": sum(extras.values(), program) + groups["dev"],
        "requirements-build.txt": project["build-system"]["requires"] + groups["build"],
        "requirements-bench.txt": groups["bench"],
        "requirements-k8s.txt": groups["k8s"],
    }
    pins = {name: _pins(Path(name)) for name in needed}
    found = []
    for name, wanted in needed.items():
        for requirement in map(Requirement, wanted):
            version = pins[name].get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                found.append(f"{name} pins {requirement.name} to {version}, but pyproject.toml requires {requirement}")
        if re.search(r"https?://|file:|^--(index|extra|find)", Path(name).read_text(), re.MULTILINE):
            found.append(f"{name} names an index or URL")
    found += [
        f"requirements-dev.txt does not pin {package} to {version}, as {name} does"
        for name in ("requirements.txt", *(f"requirements-{extra}.txt" for extra in FORMAT_EXTRAS))
        for package, version in pins[name].items()
        if pins["requirements-dev.txt"].get(package) != version
    ]
    if pins["requirements-api.txt"] != {
        name: pin for name, pin in pins["requirements.txt"].items() if name not in DECODERS
    }:
        found.append("requirements-api.txt is not requirements.txt without the decoders")
    return found


def _pins(file: Path) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in PIN.findall(file.read_text())}


if __name__ == "__main__":
    if found := problems():
        sys.exit("\n".join([*found, "Run `make requirements`."]))
