"""Proves the judge: the service with one thing wrong with it must be caught, by name.

    python -m tests.faults.mutants [NAME…]

Each mutant is a small patch in ``mutants/``, applied to a copy of the source; the product has no switch for it. It
plays the story that shows it. The same story is first told of the service as it is, which must keep every promise.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from harness.servers import PostgresServer, RabbitMQServer, new_folder
from image_service.database.migrations import upgrade
from tests.faults import queues
from tests.faults.fork_server import PROJECT, ForkServer
from tests.faults.host import Host
from tests.faults.scenarios import SCENARIOS

PATCHES: Final = Path(__file__).with_name("mutants")
PATIENCE: Final = 8.0
"""Seconds in which a service that does nothing wrong has come to rest after any of these stories."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """Something wrong."""

    name: str
    scenario: str
    """The story that shows it."""
    invariant: str
    """The promise that it breaks there."""

    @property
    def patch(self) -> Path:
        return PATCHES / f"{self.name}.patch"


MUTANTS: Final = (
    Mutant("ack-early", "worker_dies_with_a_backlog", "accepted-image-ends"),
    Mutant("attempts-not-charged", "image_takes_its_worker_with_it", "poison-image-ends-error"),
    Mutant("finished-files-discarded", "reply_to_the_end_is_lost", "done-is-complete"),
    Mutant("lease-ignored", "message_comes_five_times", "valid-image-is-done"),
    Mutant("lost-messages-not-looked-for", "broker_forgets", "accepted-image-ends"),
    Mutant("no-fence", "worker_resumes_after_its_lease", "done-is-complete"),
    Mutant("no-file-sync", "power_fails_after_acceptance", "original-is-what-was-sent"),
    Mutant("no-folder-sync", "power_fails_after_acceptance", "original-is-what-was-sent"),
    Mutant("no-shard-sync", "power_fails_after_acceptance", "original-is-what-was-sent"),
    Mutant("no-reconciler", "api_dies_before_it_publishes", "accepted-image-ends"),
    Mutant("no-sweeper", "api_dies_before_it_records", "no-orphan-file"),
    Mutant("not-mandatory", "queue_is_gone", "accepted-image-ends"),
    Mutant("outages-charged", "storage_is_away", "valid-image-is-done"),
    Mutant("publish-before-commit", "commit_is_slow", "accepted-image-ends"),
    Mutant("removals-forgotten", "api_dies_while_it_deletes", "deleted-stays-deleted"),
    Mutant("row-before-file", "api_dies_before_the_file_has_its_name", "original-is-what-was-sent"),
    Mutant("sweeper-without-grace", "sweeper_comes_before_the_row", "original-is-what-was-sent"),
    Mutant("thumbnails-apart", "worker_dies_when_an_image_is_done", "done-is-complete"),
    Mutant("unconditional-note", "worker_is_faster_than_the_note", "terminal-stays"),
    Mutant("unrecorded-file-deleted", "reply_to_recording_is_lost", "original-is-what-was-sent"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What all machines share."""

    postgres: PostgresServer
    rabbitmq: RabbitMQServer

    async def broken(self, fork_server: ForkServer, scenario_name: str) -> list[str]:
        """The promises that the fork_server's source does not keep in a story, by name."""
        scenario = SCENARIOS[scenario_name]
        await queues.empty(self.rabbitmq.url)
        database = f"story_{time.monotonic_ns()}"
        url = await asyncio.to_thread(self.postgres.create_database, database)
        await asyncio.to_thread(upgrade, url)
        folder = new_folder()
        host = Host(folder, fork_server, url, self.rabbitmq.url, scenario.settings)
        try:
            with suppress(AssertionError, pytest.fail.Exception):  # what went wrong is for the judge to name
                await scenario.play(host)
            for name in [name for name in ("api", "worker") if name not in host.processes]:
                await host.start(name)
            return sorted({violation.invariant for violation in await host.violations(PATIENCE)})
        finally:
            await host.close()
            await asyncio.to_thread(shutil.rmtree, folder)


def mutated(mutant: Mutant, folder: Path) -> Path:
    """A copy of the project in the folder, with the mutant's patch.

    Raises:
        SystemExit: the patch does not fit the source any more.
    """
    project = folder / mutant.name
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("src", "migrations"):
        shutil.copytree(PROJECT / part, project / part, ignore=ignored)
    command = ("git", "apply", "--whitespace=nowarn", str(mutant.patch))
    # Outside any repository: inside one, git would look for the files in that.
    done = subprocess.run(  # noqa: S603  (our own words)
        command,
        cwd=project,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "GIT_CEILING_DIRECTORIES": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{mutant.patch.name} does not fit the source any more; make it anew:\n{done.stderr}")
    return project


async def run(chosen: list[Mutant]) -> int:
    """Steps every story twice, and print the table; returns how many mutants got away, or stories were not kept."""
    wrong = 0
    with (
        TemporaryDirectory(prefix="image-service-mutants-") as folder,
        PostgresServer(new_folder(), fsync=False) as postgres,
        RabbitMQServer(new_folder()) as rabbitmq,
    ):
        servers = Servers(postgres=postgres, rabbitmq=rabbitmq)
        with ForkServer() as fork_server:
            for scenario in sorted({mutant.scenario for mutant in chosen}):
                broken = await servers.broken(fork_server, scenario)
                wrong += bool(broken)
                _print("as it is", scenario, broken or ["every promise kept"])
        for mutant in chosen:
            with ForkServer(mutated(mutant, Path(folder))) as fork_server:
                broken = await servers.broken(fork_server, mutant.scenario)
            caught = mutant.invariant in broken
            wrong += not caught
            _print(mutant.name, mutant.scenario, broken if caught else [*broken, f"NOT CAUGHT: {mutant.invariant}"])
    _print(f"{len(chosen)} mutants", f"{wrong} wrong", [])
    return wrong


def _print(name: str, scenario: str, broken: list[str]) -> None:
    print(f"{name:30}{scenario:40} {', '.join(broken)}", flush=True)  # noqa: T201  (a program's output)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them, if left out")
    names = parser.parse_args().names
    chosen = [mutant for mutant in MUTANTS if mutant.name in names or not names]
    sys.exit(bool(asyncio.run(run(chosen))))


if __name__ == "__main__":
    main()
