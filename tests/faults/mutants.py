"""Tests the checker by mutation: every mutant of the service must violate its expected invariant.

    python -m tests.faults.mutants [NAME…]

Each mutant is a small patch in ``mutants/``, applied to a copy of the source. It runs the scenario that exposes it. The
unmodified service runs the same scenario first and must violate no invariant.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from harness.broker import purge_queues
from harness.processes import SOURCE
from harness.servers import ForkServer, PostgresServer, RabbitMQServer, new_folder
from image_service.database.migrations import upgrade
from tests.faults.all_scenarios import SCENARIOS
from tests.faults.host import PROGRAM, Host
from tests.faults.kill_points import STANDALONE

PATCHES: Final = Path(__file__).with_name("mutants")
CONVERGENCE: Final = 8.0
"""Seconds within which a correct service becomes idle after any of these scenarios."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect in the service."""

    name: str
    scenario: str
    """The scenario that exposes it."""
    invariant: str
    """The invariant that it violates there."""

    @property
    def patch(self) -> Path:
        return PATCHES / f"{self.name}.patch"


MUTANTS: Final = (
    Mutant("ack-early", "worker_dies_with_a_backlog", "accepted-image-ends"),
    Mutant("answered-before-commit", "power_fails_in_a_commit_under_sqlite", "accepted-image-ends"),
    Mutant("attempts-not-charged", "image_kills_every_worker", "poison-image-ends-error"),
    Mutant("cursor-by-number", "deletion_commits_late", "streams-miss-nothing"),
    Mutant("deliveries-apart", "worker_dies_after_it_created_deliveries", "webhooks-miss-nothing"),
    Mutant("deliveries-without-fence", "worker_resumes_after_its_lease_on_a_delivery", "delivered-is-true"),
    Mutant("event-apart", "worker_dies_after_done", "every-change-has-its-event"),
    Mutant("event-of-a-lost-claim", "worker_resumes_after_its_lease", "every-change-has-its-event"),
    Mutant("failed-commit-ignored", "commit_fails_under_sqlite", "accepted-image-ends"),
    Mutant("failed-unit-undoes-its-group", "upload_fails_in_a_group_under_sqlite", "accepted-image-ends"),
    Mutant("finished-files-discarded", "reply_to_complete_is_lost", "done-is-complete"),
    Mutant("lease-ignored", "message_is_delivered_five_times", "valid-image-is-done"),
    Mutant("left-out-forgotten", "outputs_kill_every_worker", "done-is-complete"),
    Mutant("lost-messages-not-looked-for", "broker_loses_all_messages", "accepted-image-ends"),
    Mutant("lost-outputs-not-looked-for", "broker_loses_the_messages_of_late_outputs", "outputs-follow"),
    Mutant("no-fence", "worker_resumes_after_its_lease", "done-is-complete"),
    Mutant("no-file-sync", "power_fails_after_acceptance", "original-is-what-was-sent"),
    Mutant("no-folder-sync", "power_fails_after_acceptance", "original-is-what-was-sent"),
    Mutant("no-shard-sync", "power_fails_after_acceptance", "original-is-what-was-sent"),
    Mutant("no-reconciler", "api_dies_before_it_publishes", "accepted-image-ends"),
    Mutant("no-sweeper", "api_dies_before_it_records", "no-orphan-file"),
    Mutant("not-mandatory", "queue_is_deleted", "accepted-image-ends"),
    Mutant("outages-charged", "storage_is_unavailable", "valid-image-is-done"),
    Mutant("outputs-apart", "worker_dies_after_done_with_outputs_to_follow", "outputs-follow"),
    Mutant("outputs-never-queued", "worker_dies_after_done_with_outputs_to_follow", "outputs-follow"),
    Mutant("outputs-not-charged", "outputs_kill_every_worker", "outputs-follow"),
    Mutant("outputs-without-fence", "worker_resumes_after_its_lease_on_outputs", "done-is-complete"),
    Mutant("pending-deliveries-purged", "events_with_deliveries_to_make_are_old", "webhooks-miss-nothing"),
    Mutant("publish-before-commit", "commit_is_slow", "accepted-image-ends"),
    Mutant("published-unconfirmed", "worker_dies_after_it_noted_what_is_published", "exchange-misses-nothing"),
    Mutant("read-only-charged", "database_is_read_only", "valid-image-is-done"),
    Mutant("read-only-sessions-kept", "read_only_sessions_outlive_the_failover", "uploads-are-accepted-again"),
    Mutant("removals-forgotten", "api_dies_during_deletion", "deleted-stays-deleted"),
    Mutant("replaced-files-forgotten", "recipe_changes", "no-orphan-file"),
    Mutant("replay-before-subscription", "stream_resumes_while_something_happens", "streams-miss-nothing"),
    Mutant("row-before-file", "api_dies_before_rename", "original-is-what-was-sent"),
    Mutant("sweeper-without-grace", "sweeper_runs_before_the_row_is_committed", "original-is-what-was-sent"),
    Mutant("thumbnails-apart", "worker_dies_after_done", "done-is-complete"),
    Mutant("unconditional-note", "image_is_done_before_it_is_marked_queued", "terminal-stays"),
    Mutant("unknown-recipe-rendered", "worker_does_not_know_the_recipe", "recipe-is-kept"),
    Mutant("unrecorded-file-deleted", "reply_to_recording_is_lost", "original-is-what-was-sent"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers shared by all hosts."""

    postgres: PostgresServer
    rabbitmq: RabbitMQServer

    async def violated(self, fork_server: str, scenario_name: str) -> list[str]:
        """Return the names of the invariants that the fork server's source violates in a scenario."""
        scenario = SCENARIOS[scenario_name]
        folder = new_folder()
        if scenario.standalone:
            host = Host.standalone(folder, fork_server, scenario.settings)
        else:
            host = await self._distributed(folder, fork_server, scenario.settings)
        try:
            with suppress(AssertionError, pytest.fail.Exception):  # the checker reports what went wrong
                await scenario.run(host)
            roles = (STANDALONE,) if scenario.standalone else ("api", "worker")
            for name in [name for name in roles if name not in host.processes]:
                await host.start(name)
            return sorted({violation.invariant for violation in await host.violations(CONVERGENCE)})
        finally:
            await host.close()
            await asyncio.to_thread(shutil.rmtree, folder)

    async def _distributed(self, folder: Path, fork_server: str, settings: Mapping[str, str]) -> Host:
        await purge_queues(self.rabbitmq.url)
        database = f"scenario_{time.monotonic_ns()}"
        url = await asyncio.to_thread(self.postgres.create_database, database)
        await asyncio.to_thread(upgrade, url)
        return Host(folder, fork_server, url, self.rabbitmq.url, settings)


def mutated(mutant: Mutant, folder: Path) -> Path:
    """Copy the project into the folder and apply the mutant's patch.

    Raises:
        SystemExit: the patch no longer applies.
    """
    project = folder / mutant.name
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("src", "migrations"):
        shutil.copytree(SOURCE.parent / part, project / part, ignore=ignored)
    command = ("git", "apply", "--whitespace=nowarn", str(mutant.patch))
    # Outside any repository: inside one, git would apply the patch relative to that.
    done = subprocess.run(  # noqa: S603  (constant arguments)
        command,
        cwd=project,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "GIT_CEILING_DIRECTORIES": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{mutant.patch.name} no longer applies; regenerate it:\n{done.stderr}")
    return project


async def run(chosen: list[Mutant]) -> int:
    """Run every scenario unmodified and mutated, print a table, and return the number of unexpected results."""
    wrong = 0
    with (
        TemporaryDirectory(prefix="image-service-mutants-") as folder,
        PostgresServer(new_folder(), fsync=False) as postgres,
        RabbitMQServer(new_folder()) as rabbitmq,
    ):
        servers = Servers(postgres=postgres, rabbitmq=rabbitmq)
        with ForkServer(new_folder(), modules=[PROGRAM]) as fork_server:
            for scenario in sorted({mutant.scenario for mutant in chosen}):
                violated = await servers.violated(fork_server.url, scenario)
                wrong += bool(violated)
                _print("unmodified", scenario, violated or ["no violation"])
        for mutant in chosen:
            source = mutated(mutant, Path(folder)) / "src"
            with ForkServer(new_folder(), source, modules=[PROGRAM]) as fork_server:
                violated = await servers.violated(fork_server.url, mutant.scenario)
            caught = mutant.invariant in violated
            wrong += not caught
            _print(mutant.name, mutant.scenario, violated if caught else [*violated, f"NOT CAUGHT: {mutant.invariant}"])
    _print(f"{len(chosen)} mutants", f"{wrong} wrong", [])
    return wrong


def _print(name: str, scenario: str, violated: list[str]) -> None:
    print(f"{name:30}{scenario:40} {', '.join(violated)}", flush=True)  # noqa: T201  (program output)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all mutants")
    names = parser.parse_args().names
    chosen = [mutant for mutant in MUTANTS if mutant.name in names or not names]
    sys.exit(bool(asyncio.run(run(chosen))))


if __name__ == "__main__":
    main()
