"""Worker processes whose renderer sleeps instead of rendering (see ``sleeping_renderer``)."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.processes import SOURCE
from harness.service import Service

RENDER_SECONDS: Final = 0.05
"""Seconds for each image."""
_ROOT: Final = Path(__file__).parents[2]


class SleepingWorker(Service):
    """A worker process that spends ``render_seconds`` on each image, without processor time."""

    def __init__(
        self, folder: Path, env: Mapping[str, str], name: str = "worker", render_seconds: float = RENDER_SECONDS
    ) -> None:
        env = {
            **env,
            "LIVENESS_FILE": str(folder / f"{name}.alive"),
            "PYTHONPATH": f"{SOURCE}:{_ROOT}",
            "RENDER_SECONDS": str(render_seconds),
        }
        command = (sys.executable, "-m", "benchmarks.operations.sleeping_renderer", "worker")
        super().__init__(folder / name, *command, started='"worker started"', env=env)
