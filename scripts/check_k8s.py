# ruff: noqa: INP001  (a program, not a package)
"""Validates rendered manifests strictly: each object needs a schema, and unknown fields are errors.

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
"""Schemas of custom resources."""
VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""The oldest version that has all the fields in use, and the newest."""


def problems(manifest: dict[str, Any]) -> list[str]:
    """Returns what is wrong with an object in any of the versions."""
    schema = SCHEMAS / f"{manifest['kind'].lower()}.json"
    try:
        if schema.exists():
            jsonschema.validate(manifest, json.loads(schema.read_text()))
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(manifest, version, strict=True)
    except jsonschema.ValidationError as error:
        return [f"{error.json_path}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


def main() -> None:
    """Validate the files, print the number of objects, and exit with the problems if there are any."""
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
