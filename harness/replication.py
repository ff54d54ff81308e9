"""A PostgreSQL primary with a synchronous standby, as operators run them: for tests of failovers.

All methods block.

    pair = ReplicatedPostgres()
    pair.start()
    pair.kill_primary()
    pair.promote_standby()
    pair.add_standby()  # for the next failover
"""

from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from harness.processes import ServerError, wait_until
from harness.servers import PostgresServer, new_folder

DATABASE = "images"
_SYNC_LIMIT = 60.0
_SETTINGS = {
    "wal_keep_size": "128MB",  # a standby that was disconnected for a moment can go on
    "wal_retrieve_retry_interval": "200ms",  # and does so soon: commits wait for it
    "max_standby_streaming_delay": "1s",  # a query on the standby must not delay commits for longer
    # A commit is confirmed once it can be read on the standby: a client may be switched to that at any moment.
    "synchronous_commit": "remote_apply",
}
_IN_SYNC = "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"
_TERMINATE = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{DATABASE}'"  # noqa: S608  (a constant)
_STREAMING = "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"


class ReplicatedPostgres:
    """A primary and, most of the time, a standby. A commit that was confirmed while it had one survives a failover."""

    def __init__(self, *, fsync: bool = True) -> None:
        """``fsync`` as for ``PostgresServer``."""
        self._fsync = fsync
        self.primary = PostgresServer(new_folder(), fsync=fsync)
        self._standby: PostgresServer | None = None

    @property
    def url(self) -> str:
        """The URL of the database on the server that is the primary now."""
        return urlunsplit(urlsplit(self.primary.url)._replace(path=f"/{DATABASE}"))

    @property
    def standby(self) -> PostgresServer:
        """The running standby."""
        assert self._standby is not None, "there is no standby"
        return self._standby

    def start(self) -> None:
        """Start both for the first time."""
        self.primary.start()
        for name, value in _SETTINGS.items():
            self.primary.ask(f"ALTER SYSTEM SET {name} = '{value}'")
        self.primary.ask("SELECT pg_reload_conf()")
        self.primary.create_database(DATABASE)
        self.add_standby()

    def close(self) -> None:
        """Stop both and remove their folders."""
        for server in (self._standby, self.primary):
            if server is not None:
                server.close()

    def kill_primary(self) -> None:
        """SIGKILL the primary: it is started again, or the standby is promoted in its place."""
        self.primary.kill()

    def start_primary(self) -> None:
        """Start the primary again; return when commits reach the standby again."""
        self.primary.start()
        self._wait_until(_IN_SYNC)

    def restart_primary(self) -> None:
        """Restart the primary normally; return when commits reach the standby again."""
        self.primary.restart()
        self._wait_until(_IN_SYNC)

    def promote_standby(self) -> None:
        """Make the standby the primary. It commits without a standby until ``add_standby``.

        The old primary has to be dead. Its data are removed, so that it never serves beside the new one.
        """
        dead, self.primary, self._standby = self.primary, self.standby, None
        dead.close()
        self.primary.ask("SELECT pg_promote(true, 60)")

    def kill_standby(self) -> None:
        """SIGKILL the standby for good. Commits wait until ``release_commits``."""
        self.standby.kill()

    def release_commits(self) -> None:
        """Let the primary commit without a standby, as operators do when it does not come back."""
        dead, self._standby = self.standby, None
        self._wait_for("")
        dead.close()

    def add_standby(self) -> None:
        """Copy a new standby from the primary; commits wait for it from then on."""
        standby = PostgresServer(new_folder(), fsync=self._fsync, follows=self.primary)
        standby.start()
        self._standby = standby
        # Only now: the setting is not in the copy, so that the standby commits alone after its promotion.
        self._wait_until(_STREAMING)
        self._wait_for("*")
        self._wait_until(_IN_SYNC)

    def make_read_only(self) -> None:
        """Make new sessions read-only, and terminate those that are open."""
        self.primary.ask(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
        self.primary.ask(_TERMINATE)

    def make_writable(self) -> None:
        """Make new sessions writable again; those that are open stay read-only."""
        self.primary.ask(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only")

    def _wait_for(self, standbys: str) -> None:
        """Set the names of the standbys that commits wait for."""
        self.primary.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")
        self.primary.ask("SELECT pg_reload_conf()")

    def _wait_until(self, condition: str) -> None:
        def is_met() -> bool:
            with suppress(OSError):
                return bool(self.primary.ask(condition))
            return False

        if not wait_until(is_met, timeout=_SYNC_LIMIT, interval=0.1):
            raise ServerError(f"the standby does not follow its primary: {condition}")
