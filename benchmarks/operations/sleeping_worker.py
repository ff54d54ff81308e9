"""Processes of the worker whose renderer waits (see ``waiting``)."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.service import Service

WAIT: Final = 0.05
"""Seconds."""
_ROOT: Final = Path(__file__).parents[2]


class WaitingWorker(Service):
    """A worker process; each image takes it so many seconds, and no processor time for them."""

    def __init__(self, folder: Path, env: Mapping[str, str], name: str = "worker", wait: float = WAIT) -> None:
        env = {
            **env,
            "LIVENESS_FILE": str(folder / f"{name}.alive"),
            "PYTHONPATH": str(_ROOT),
            "WAIT_SECONDS": str(wait),
        }
        command = (sys.executable, "-m", "benchmarks.operations.waiting", "worker")
        super().__init__(folder / name, *command, started='"worker started"', env=env)
