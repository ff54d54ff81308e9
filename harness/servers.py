"""Private PostgreSQL, PgBouncer, RabbitMQ and Prometheus servers, each in a folder of its own, as root or not.

All methods block. From a coroutine, call them with ``asyncio.to_thread`` unless nothing else has to go on meanwhile.

    with RabbitMQServer(new_folder()) as rabbitmq:
        rabbitmq.kill()
        rabbitmq.start()  # the same port, and the data that it had
"""

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
import psutil
from sqlalchemy import NullPool, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from harness import amqp
from harness.processes import ProcessGroup, ServerError, free_port, wait_until

CONNECT_TIMEOUT = 5.0
ADVICE = {
    "PostgreSQL": "`make test` installs it, or set TEST_DATABASE_URL to a server of yours "
    "(postgresql+asyncpg://user:password@host:port/database)",
    "PgBouncer": "`make test` installs it",
    "RabbitMQ": "`make test` installs it, or set TEST_RABBITMQ_URL to a server of yours (amqp://user:password@host:port/)",
    "Prometheus": "`make test` installs it; or install it yourself (Debian, Ubuntu: apt-get install prometheus)",
}


class PrivateServer(ABC):
    """What the servers have in common."""

    name: str
    _stop_signal: signal.Signals
    _quick_stop_signal: signal.Signals
    start_timeout = 60.0
    stop_timeout = 60.0

    def __init__(self, folder: Path) -> None:
        """The folder becomes the server's alone: it is made if missing, and removed by ``close``."""
        self.folder = folder
        self._group = ProcessGroup(folder=folder)
        self._process: psutil.Popen | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server, on what a former life of it left in the folder; return when it answers."""
        if self._process is not None:
            raise ServerError(f"{self.name} is running already")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            process = self._launch()
            self._wait_for_answer(process)
        except (ServerError, OSError) as error:
            self._group.kill()
            message = f"{self.name} did not start: {error}. {ADVICE[self.name]}.\n{self._group.tail()}"
            raise ServerError(message) from error
        except BaseException:
            self._group.kill()
            raise
        self._process = process

    def _wait_for_answer(self, process: psutil.Popen) -> None:
        in_time = wait_until(
            lambda: self._answers() or process.poll() is not None, timeout=self.start_timeout, interval=0.05
        )
        if process.poll() is not None:
            raise ServerError(f"it ended by itself with exit code {process.returncode}")
        if not in_time:
            raise ServerError(f"it did not answer within {self.start_timeout:.0f} s")

    def stop(self) -> None:
        """Shut the server down in good order; the folder stays."""
        if self._process is not None:
            process, self._process = self._process, None
            self._group.end(process, self._stop_signal, timeout=self.stop_timeout)

    def kill(self) -> None:
        """SIGKILL the server with all its processes; the folder stays."""
        self._process = None
        self._group.kill()

    def restart(self) -> None:
        """Stop in good order, and start again on the same port with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server, in any order, and remove its folder."""
        process, self._process = self._process, None
        if process is None:
            self._group.kill()
        else:
            self._group.end(process, self._quick_stop_signal, timeout=self.stop_timeout)
        shutil.rmtree(self.folder)

    @property
    def process(self) -> psutil.Popen:
        """Its first process in its present life."""
        assert self._process is not None, "not running"
        return self._process

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it; the same after every restart."""

    @abstractmethod
    def _launch(self) -> psutil.Popen: ...

    @abstractmethod
    def _answers(self) -> bool: ...


class PostgresServer(PrivateServer):
    """A PostgreSQL server. Its superuser is ``app``, and everybody on this machine is trusted."""

    name = "PostgreSQL"
    _stop_signal = signal.SIGINT  # clients are disconnected, not waited for
    _quick_stop_signal = signal.SIGQUIT  # without a checkpoint, but gives its shared memory back

    def __init__(self, folder: Path, *, fsync: bool = True) -> None:
        """Without ``fsync`` it is faster, and its data survive a kill but no power loss."""
        super().__init__(folder)
        self.port = free_port()
        self._fsync = fsync
        self._env = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
        if os.geteuid() == 0:  # as root it refuses to run
            self._group.account = pwd.getpwnam("nobody").pw_uid

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://app@127.0.0.1:{self.port}/postgres"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, as a copy of the template if one is named; returns its URL."""
        return create_database(self.url, name, template)

    def drop_database(self, name: str) -> None:
        """Remove a database, and whoever is connected to it."""
        drop_database(self.url, name)

    def _launch(self) -> psutil.Popen:
        programs = _postgres_programs()
        data = self.folder / "data"
        if not data.exists():
            self._hand_over_folder()
            options = ["-D", str(data), "-U", "app", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"]
            if self._group.spawn(programs / "initdb", *options, env=self._env).wait(self.start_timeout) != 0:
                raise ServerError("initdb failed")
            self._group.kill()
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
            "max_connections": "200",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return self._group.spawn(programs / "postgres", "-D", str(data), "-p", str(self.port), *options, env=self._env)

    def _hand_over_folder(self) -> None:
        if self._group.account is None:
            return
        if blocked := [parent for parent in self.folder.absolute().parents if not parent.stat().st_mode & 0o001]:
            raise ServerError(
                f"as root it runs as `nobody`, who may not enter {blocked[0]}: take one from new_folder()"
            )
        os.chown(self.folder, self._group.account, self._group.account)

    def _answers(self) -> bool:
        try:
            directory = _run(_ask(self.url, "SHOW data_directory"))
        except (OSError, SQLAlchemyError):
            return False
        return directory == str(self.folder.absolute() / "data")


class PgBouncerServer(PrivateServer):
    """PgBouncer in front of a PostgreSQL server: many clients share few connections, a transaction at a time."""

    name = "PgBouncer"
    _stop_signal = signal.SIGINT  # after the transactions that run; SIGTERM would wait for clients to go
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path, server_url: str, connections: int = 3) -> None:
        """``connections`` is how many each database may have on the server."""
        super().__init__(folder)
        self.port = free_port()
        self._server = urlsplit(server_url)
        self._connections = connections
        if os.geteuid() == 0:  # as root it refuses to run
            self._group.account = pwd.getpwnam("nobody").pw_uid

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Where clients find a database of the server."""
        return f"postgresql+asyncpg://app@127.0.0.1:{self.port}/{database}?prepared_statement_cache_size=0"

    def _launch(self) -> psutil.Popen:
        server = self._server
        target = f"host={server.hostname} port={server.port} user={server.username}"
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": self._connections,
            "server_idle_timeout": 5,  # databases of tests come and go
        }
        lines = ["[databases]", f"* = {target}" + (f" password={server.password}" if server.password else "")]
        lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        if self._group.account is not None:
            os.chown(self.folder, self._group.account, self._group.account)
        return self._group.spawn(program("pgbouncer"), str(self.folder / "pgbouncer.ini"), env={})

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return True
        except OSError:
            return False


class RabbitMQServer(PrivateServer):
    """A RabbitMQ broker with an epmd of its own; ``guest`` may do everything.

    Or one more node of a cluster, with the epmd of the node that it joins, which has to run by then.
    """

    COUNTED_EVERY = 5.0
    """Seconds between two moments in which a quorum queue counts its messages."""

    name = "RabbitMQ"
    _stop_signal = signal.SIGTERM
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path, joins: "RabbitMQServer | None" = None) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._distribution_port = free_port()
        self._joins = joins
        self.epmd_port: int = joins.epmd_port if joins else free_port()
        self.node = f"test{self.port}@localhost"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def control(self, *arguments: str) -> str:
        """Run the broker's administration tool, which takes a second or so; returns what it prints."""
        command = (str(_rabbitmq_program("rabbitmqctl")), "--quiet", *arguments)
        env = {"PATH": os.environ["PATH"], **self._environment()}
        return subprocess.check_output(command, env=env, text=True)  # noqa: S603  (our own words)

    def unacknowledged(self) -> int:
        """How many messages were delivered, and neither acknowledged nor given back; as of ``COUNTED_EVERY`` ago."""
        told = self.control("list_queues", "messages_unacknowledged", "--formatter", "json")
        return sum(queue["messages_unacknowledged"] for queue in json.loads(told))

    def _launch(self) -> psutil.Popen:
        server, epmd = _rabbitmq_program("rabbitmq-server"), program("epmd")
        self._write_configuration()
        env = self._environment()
        if not self._joins:
            # The broker would start one that outlives it.
            mapper = self._group.spawn(epmd, env=env)
            if not wait_until(self._epmd_answers, timeout=self.start_timeout) or mapper.poll() is not None:
                raise ServerError("epmd does not answer")
        return self._group.spawn(server, env=env)

    def _write_configuration(self) -> None:
        for name in ("mnesia", "log", "home"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].\n")
        cookie = self.folder / "home" / ".erlang.cookie"  # nodes of a cluster have the same
        if not cookie.exists():
            cookie.write_text("tests")
            cookie.chmod(0o400)  # or Erlang refuses it
        cluster = [self._joins.node, self.node] if self._joins else []
        settings = (
            *(f"cluster_formation.classic_config.nodes.{number} = {node}" for number, node in enumerate(cluster, 1)),
            "loopback_users = none",
            "log.file = false",
            "log.console = true",
            "log.console.level = warning",
            "vm_memory_high_watermark.absolute = 512MiB",
            "disk_free_limit.absolute = 50MB",
        )
        (self.folder / "rabbitmq.conf").write_text("\n".join(settings) + "\n")

    def _environment(self) -> dict[str, str]:
        folder = self.folder.absolute()
        erlang = (
            "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none "
            "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
        )
        return {
            "LANG": "C.UTF-8",
            "HOME": f"{folder}/home",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{folder}/feature_flags",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": erlang,
        }

    def _epmd_answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.epmd_port), timeout=1.0) as connection:
                connection.sendall(b"\x00\x01n")  # NAMES_REQ, answered with its port and the nodes it knows
                return connection.recv(4) == self.epmd_port.to_bytes(4, "big")
        except OSError:
            return False

    def _answers(self) -> bool:
        name = amqp.cluster_name(self.url)  # the node's, with the host's full name behind the @
        return name is not None and name.split("@")[0] == self.node.split("@")[0]


class PrometheusServer(PrivateServer):
    """A Prometheus that goes by ``prometheus.yml`` in its folder, which may name rules beside it."""

    name = "Prometheus"
    _stop_signal = signal.SIGTERM
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path, configuration: str, rules: str) -> None:
        """Both files' content; the rules' name is ``rules.yml``."""
        super().__init__(folder)
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(configuration)
        (folder / "rules.yml").write_text(rules)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, **parameters: str) -> dict[str, Any]:
        """The data of an answer of its API, such as ``query`` with a parameter ``query``."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, trust_env=False)
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data

    def _launch(self) -> psutil.Popen:
        folder = self.folder.absolute()
        options = (
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        )
        return self._group.spawn(program("prometheus"), *options, env={"GOMAXPROCS": "1"})

    def _answers(self) -> bool:
        try:
            configuration = self.ask("status/config")["yaml"]
        except httpx.HTTPError:
            return False
        return f"{self.folder.absolute()}/rules.yml" in configuration


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """What Prometheus's own checker says; it must have no complaint.

    Raises:
        ServerError: it has, or it is not there.
    """
    try:
        path = program("promtool")
    except ServerError as error:
        raise ServerError(f"{error}. {ADVICE['Prometheus']}.") from error
    checked = subprocess.run(  # noqa: S603  (our own files)
        [path, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    if checked.returncode:
        raise ServerError(f"promtool {arguments}: {checked.stdout}{checked.stderr}")
    return checked.stdout


def new_folder() -> Path:
    """A folder for a server. PostgreSQL, which may run as another user, may not enter those that pytest makes."""
    return Path(tempfile.mkdtemp(prefix="image-service-tests-"))


def create_database(url: str, name: str, template: str | None = None) -> str:
    """Make a database on the server that the URL leads to; returns the new database's URL."""
    _run(_ask(url, f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else "")))
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def drop_database(url: str, name: str) -> None:
    """Remove a database from the server that the URL leads to, and whoever is connected to it."""
    _run(_ask(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


async def _ask(url: str, statement: str) -> object:
    engine = create_async_engine(
        url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args={"timeout": CONNECT_TIMEOUT}
    )
    try:
        async with engine.connect() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


def _run(coroutine: Coroutine[object, object, object]) -> object:
    """In a thread of its own: the caller's may have a running event loop."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(asyncio.run, coroutine).result()


def _postgres_programs() -> Path:
    """The folder of the newest PostgreSQL's programs."""
    installed = [initdb.parent for initdb in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if installed:
        return max(installed, key=lambda folder: int(folder.parent.name))
    return program("initdb").resolve().parent


def _rabbitmq_program(name: str) -> Path:
    """Debian's own wrapper on the PATH changes the user, so the program behind it comes first."""
    real = Path("/usr/lib/rabbitmq/bin", name)
    return real if real.exists() else program(name)


def program(name: str) -> Path:
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
    if found := shutil.which(name, path=path):
        return Path(found)
    raise ServerError(f"there is no `{name}` on this machine")
