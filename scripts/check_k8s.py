# ruff: noqa: INP001  (a program, not a package)
"""Checks rendered manifests strictly: each object has a schema, and no field that the schema does not name.

Usage: check_k8s.py FILE...
"""

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

SCHEMAS = Path("k8s/schemas")
"""For the kinds that Kubernetes itself does not know."""
VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""The oldest that has what we use, and the newest."""


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with an object, in any of the versions."""
    own = SCHEMAS / f"{manifest['kind'].lower()}.json"
    try:
        if own.exists():
            jsonschema.validate(manifest, json.loads(own.read_text()))
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(manifest, version, strict=True)
    except jsonschema.ValidationError as error:
        return [f"{error.json_path}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


def main() -> None:
    """Print what is wrong, or how much is right."""
    found = []
    for file in map(Path, sys.argv[1:]):
        manifests = [manifest for manifest in yaml.safe_load_all(file.read_text()) if manifest]
        for manifest in manifests:
            name = f"{file.name} {manifest['kind']}/{manifest['metadata']['name']}"
            found += [f"{name}: {problem}" for problem in problems(manifest)]
        print(f"{file.name}: {len(manifests)} objects, Kubernetes {' and '.join(VERSIONS)}")  # noqa: T201
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
