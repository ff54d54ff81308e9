"""Verifies webhooks as receivers in JavaScript do, with the official library, which `make test-servers` installs."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from harness.processes import SOURCE, ServerError
from harness.servers import program

_SCRIPT = Path(__file__).with_name("verify_webhooks.mjs")
_INSTALLED = SOURCE.parent / ".standardwebhooks"


class Received(TypedDict):
    """A webhook as it was received, and the secret, or public key, that its receiver knows."""

    secret: str
    headers: dict[str, str]
    body: str


def javascript_verdicts(received: Sequence[Received]) -> list[str]:
    """Return for each webhook ``ok``, or why it is refused."""
    javascript_library()
    answer = subprocess.run(  # noqa: S603 — a program of this repository
        [program("node"), _SCRIPT, _INSTALLED], input=json.dumps(received).encode(), capture_output=True, check=True
    )
    verdicts: list[str] = json.loads(answer.stdout)
    return verdicts


def javascript_library() -> Path:
    """Return the folder ``node_modules`` that has the official library."""
    installed = _INSTALLED / "node_modules"
    if not (installed / "standardwebhooks").exists():
        raise ServerError("the library standardwebhooks for JavaScript is missing: `make test-servers` installs it")
    return installed
