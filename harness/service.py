"""The real program, started by its command line in processes that end with the test run."""

# ruff: noqa: ASYNC109  (time limits that are checked between tries: no try is cancelled)

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx
import psutil
import pytest

from harness import fork_server
from harness.plain_http import NO_TLS
from harness.processes import Process, ProcessGroup, free_port, wait_until
from harness.waiting import eventually

PROGRAM = (sys.executable, "-m", "image_service")
"""The command `image-service`. It needs `harness.processes.SOURCE` in its PYTHONPATH where it is not installed."""
START_LIMIT = 30.0
STOP_LIMIT = 30.0
ANSWER_LIMIT = 30.0
OPEN = "no authentication: every client that reaches the API can read, upload and delete images"
"""What an API logs when it starts."""
STOPPING = "stopping; send the signal again to stop at once"
"""What it logs when it is asked to end."""
FAST_SETTINGS = {
    "LEASE_SECONDS": "3",
    "HEARTBEAT_SECONDS": "0.5",
    "DECODE_TIMEOUT": "2.5",
    "RECONCILE_INTERVAL": "0.3",
    "UNQUEUED_AFTER": "1",
    "RETRY_DELAY": "0.2",
}
"""Settings with which repairs take seconds instead of minutes."""


def measured() -> dict[str, str]:
    """Return the settings that turn code coverage on in a process, if the tests measure it.

    It doubles the process's time, so only the tests ask for it that are the ones to cover some code.
    """
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


class Service:
    """One process of the program. ``started`` is the log text that shows that it is ready.

    As a context manager it is started, and killed at the end if it still runs.
    """

    fork_server: ClassVar[str | None] = None
    """The fork server that starts the program; without one, each start is one of the real command.

    Only ``PROGRAM`` itself is forked, not a command that runs it.
    """

    def __init__(self, folder: Path, *command: str | Path, started: str, env: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._group = ProcessGroup(folder=folder)
        self._command = command
        self._started = started
        self._env = {"LOG_FORMAT": "json", **env}
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._group.kill()

    @property
    def process(self) -> Process:
        assert self._process is not None, "not running"
        return self._process

    @property
    def log(self) -> str:
        """All output since the first start."""
        return self._group.log.read_text() if self._group.log.exists() else ""

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log entries with that event."""
        entries = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]

    def start(self) -> None:
        """Start the process; return when it is ready."""
        starts = self.log.count(self._started)
        self._process = self._launch()
        ready = wait_until(
            lambda: self.log.count(self._started) > starts or not self.process.is_running(), timeout=START_LIMIT
        )
        if not ready or self.process.poll() is not None:
            pytest.fail(f"{self._command} did not start:\n{self._group.tail()}")

    def _launch(self) -> Process:
        program, arguments = self._command[: len(PROGRAM)], self._command[len(PROGRAM) :]
        if self.fork_server is None or program != PROGRAM:
            return self._group.spawn(*self._command, env=self._env)
        return self._group.fork(self.fork_server, fork_server.PROGRAM, *arguments, env=self._env)

    def hold_decoders(self) -> None:
        """Stop the decoder processes with SIGSTOP, so that renderings do not finish."""
        for decoder in self.process.children():
            decoder.suspend()

    def release_decoders(self) -> None:
        """Resume the decoder processes, except those that the service has ended meanwhile: their claim was lost."""
        for decoder in self.process.children():
            with suppress(psutil.NoSuchProcess):
                decoder.resume()

    def stop(self) -> None:
        """Stop the process with SIGTERM; it must exit with 0."""
        self.process.send_signal(signal.SIGTERM)
        self._wait_for_exit()
        status = self.process.returncode
        assert status == 0, f"{self._command} exited with {status}:\n{self._group.tail()}"
        self._group.kill()

    def kill(self) -> None:
        """SIGKILL the process and all its children."""
        self._group.kill()

    def crash(self) -> None:
        """SIGKILL the process alone, as in a crash; its decoder processes must exit by themselves."""
        self.process.kill()
        self._wait_for_exit()

    def _wait_for_exit(self) -> None:
        if not wait_until(lambda: self.process.poll() is not None, timeout=STOP_LIMIT):
            pytest.fail(f"{self._command} did not exit:\n{self._group.tail()}")


class Api(Service):
    """An API process with the same address after every restart."""

    def __init__(self, folder: Path, env: Mapping[str, str], *options: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command: tuple[str | Path, ...] = (*PROGRAM, "api", "--host", "127.0.0.1", "--port", str(port), *options)
        super().__init__(folder / "api", *command, started='"api started"', env=env)


class Worker(Service):
    """A worker process."""

    def __init__(self, folder: Path, env: Mapping[str, str], name: str = "worker") -> None:
        env = {**env, "LIVENESS_FILE": str(folder / f"{name}.alive")}
        super().__init__(folder / name, *PROGRAM, "worker", started='"worker started"', env=env)


class Standalone(Service):
    """The standalone service at a free port, optionally on a small disk of its own."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None, disk_megabytes: int | None = None) -> None:
        self.data = folder / "data"
        command: tuple[str | Path, ...] = (*PROGRAM, "standalone", "--port", "0", "--data", self.data)
        if disk_megabytes is not None:
            self.data.mkdir(parents=True)
            command = (*_on_small_disk(self.data, disk_megabytes), *command)
        super().__init__(folder / "standalone", *command, started="Upload an image", env=env or {})

    def start(self) -> None:
        """Start the process; return when API and worker are ready."""
        starts = len(self.lines("worker started"))
        super().start()
        if not wait_until(lambda: len(self.lines("worker started")) > starts, timeout=START_LIMIT):
            pytest.fail(f"its worker did not start:\n{self.log}")

    @property
    def url(self) -> str:
        """The address of the running process."""
        addresses: list[str] = re.findall(r"Image Processing Service on (\S+)", self.log)
        return addresses[-1]


def _on_small_disk(folder: Path, megabytes: int) -> tuple[str | Path, ...]:
    """Return a command prefix that mounts a tmpfs of that size on the folder in a private mount namespace.

    Without root it needs user namespaces, which the kernel or a container may forbid (Ubuntu:
    ``sysctl kernel.apparmor_restrict_unprivileged_userns=0``; Docker: ``--privileged``).
    """
    as_root: tuple[str, ...] = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    script = 'mount -t tmpfs -o "size=$0" tmpfs "$1" && shift && exec "$@"'
    return "unshare", "--mount", *as_root, "sh", "-c", script, f"{megabytes}m", folder


def client(url: str) -> httpx.AsyncClient:
    """Return an HTTP client for the API."""
    return httpx.AsyncClient(base_url=url, timeout=ANSWER_LIMIT, trust_env=False, verify=NO_TLS)


async def upload(api: httpx.AsyncClient, content: bytes, **headers: str) -> dict[str, Any]:
    """Upload an image that must be accepted; return the response."""
    answer = await api.post("/images", files={"file": ("photo.jpg", content)}, headers=headers)
    assert answer.status_code == 202, answer.text
    accepted: dict[str, Any] = answer.json()
    return accepted


async def upload_all(api: httpx.AsyncClient, contents: Iterable[bytes], at_once: int = 8) -> list[str]:
    """Upload images concurrently; all must be accepted. Return their ids."""
    limit = asyncio.Semaphore(at_once)

    async def one(content: bytes) -> str:
        async with limit:
            return str((await upload(api, content))["id"])

    return await asyncio.gather(*(one(content) for content in contents))


async def status(api: httpx.AsyncClient, image_id: str) -> dict[str, Any]:
    """Return an image's status from the API."""
    answer = await api.get(f"/images/{image_id}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def finished(api: httpx.AsyncClient, image_ids: Iterable[str], timeout: float = 30.0) -> list[dict[str, Any]]:
    """Wait until all images are DONE or ERROR; return their statuses."""
    waiting = dict.fromkeys(image_ids)
    done: list[dict[str, Any]] = []

    async def all_ended() -> bool:
        for image_id in tuple(waiting):
            current = await status(api, image_id)
            if current["status"] not in {"DONE", "ERROR"}:
                return False  # asking for the others, too, would keep the API busy
            del waiting[image_id]
            done.append(current)
        return True

    await eventually(all_ended, timeout=timeout, interval=0.1)
    return done


async def done(api: httpx.AsyncClient, image_id: str, timeout: float = 30.0) -> dict[str, Any]:
    """Wait until an image is DONE; return its status."""
    (image,) = await finished(api, [image_id], timeout)
    assert image["status"] == "DONE", image
    return image
