"""Private PostgreSQL, PgBouncer, RabbitMQ, Prometheus and fork servers, each in its own folder.

Those that refuse to run as root run as another user then.

All methods block. From a coroutine, call them with ``asyncio.to_thread`` if other tasks have to run meanwhile.

    with RabbitMQServer(new_folder()) as rabbitmq:
        rabbitmq.kill()
        rabbitmq.start()  # the same port and data
"""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import asyncpg
import httpx
import psutil

from harness import amqp
from harness.certificates import ServerFiles
from harness.databases import ask, create_database, drop_database
from harness.plain_http import NO_TLS
from harness.processes import SOURCE, ProcessGroup, ServerError, free_port, wait_until

ADVICE = {
    "PostgreSQL": "`make test-servers` installs it, or set TEST_DATABASE_URL to a server of yours "
    "(postgresql+asyncpg://user:password@host:port/database)",
    "PgBouncer": "`make test-servers` installs it",
    "RabbitMQ": "`make test-servers` installs it, or set TEST_RABBITMQ_URL (amqp://user:password@host:port/)",
    "Prometheus": "`make test-servers` installs it (Debian, Ubuntu: apt-get install prometheus)",
    "nginx": "`make test-servers` installs it (Debian, Ubuntu: apt-get install nginx-light), or set TEST_NGINX",
    "The fork server": "Its log says which module cannot be imported",
}

_ACCESS_WITH_TLS = """\
hostssl   secured all 127.0.0.1/32 trust clientcert=verify-full
hostnossl secured all 127.0.0.1/32 reject
host      all     all 127.0.0.1/32 trust
"""


class PrivateServer(ABC):
    """Base class of the servers."""

    name: str
    _stop_signal: signal.Signals
    _quick_stop_signal: signal.Signals
    start_timeout = 60.0
    stop_timeout = 60.0

    def __init__(self, folder: Path) -> None:
        """Use a private folder, which is created if missing and removed by ``close``."""
        self.folder = folder
        self._group = ProcessGroup(folder=folder)
        self._process: psutil.Popen | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server on the existing content of its folder; return when it responds."""
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
            raise ServerError(f"it exited with code {process.returncode}")
        if not in_time:
            raise ServerError(f"it did not respond within {self.start_timeout:.0f} s")

    def stop(self) -> None:
        """Shut the server down normally; the folder stays."""
        if self._process is not None:
            process, self._process = self._process, None
            self._group.end(process, self._stop_signal, timeout=self.stop_timeout)

    def kill(self) -> None:
        """SIGKILL the server with all its processes; the folder stays."""
        self._process = None
        self._group.kill()

    def restart(self) -> None:
        """Shut down normally and start again with the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server as fast as possible and remove its folder."""
        process, self._process = self._process, None
        if process is None:
            self._group.kill()
        else:
            self._group.end(process, self._quick_stop_signal, timeout=self.stop_timeout)
        shutil.rmtree(self.folder)

    @property
    def running(self) -> bool:
        """Whether the server was started, and not stopped or killed since."""
        return self._process is not None

    @property
    def process(self) -> psutil.Popen:
        """The running server's main process."""
        assert self._process is not None, "not running"
        return self._process

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients, which does not change with restarts."""

    @abstractmethod
    def _launch(self) -> psutil.Popen: ...

    @abstractmethod
    def _answers(self) -> bool: ...


class PostgresServer(PrivateServer):
    """A PostgreSQL server with the superuser ``app`` and without passwords.

    With ``follows``, a streaming standby of that server, which has to run while this one starts for the first time.
    """

    name = "PostgreSQL"
    _stop_signal = signal.SIGINT  # clients are disconnected, not waited for
    _quick_stop_signal = signal.SIGQUIT  # without a checkpoint, but frees its shared memory

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool = True,
        tls: ServerFiles | None = None,
        follows: "PostgresServer | None" = None,
    ) -> None:
        """Without ``fsync`` it is faster, and its data survive a kill but not a power failure.

        With ``tls`` it also accepts TLS; a database named ``secured`` then asks for a client certificate of its user.
        With ``follows`` it is a standby of another server.
        """
        super().__init__(folder)
        self.port = free_port()
        self._fsync = fsync
        self._tls = tls
        self._follows = follows
        self._env = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
        if os.geteuid() == 0:  # it refuses to run as root
            self._group.account = pwd.getpwnam("nobody").pw_uid

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://app@127.0.0.1:{self.port}/postgres"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, optionally as a copy of a template; return its URL."""
        return create_database(self.url, name, template)

    def drop_database(self, name: str) -> None:
        """Drop a database and its connections."""
        drop_database(self.url, name)

    def ask(self, statement: str) -> object:
        """Execute a statement outside a transaction; return the first column of the first row, if any."""
        return ask(self.url, statement)

    def _launch(self) -> psutil.Popen:
        programs = _postgres_programs()
        data = self.folder / "data"
        if not data.exists():
            self._hand_over_folder()
            if self._follows is None:
                options = ["-U", "app", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"]
                self._run_to_end(programs / "initdb", "-D", str(data), *options)
            else:
                source = ["-h", "127.0.0.1", "-p", str(self._follows.port), "-U", "app", "--checkpoint=fast"]
                copy = ["--write-recovery-conf", "--wal-method=stream", "--no-sync"]
                self._run_to_end(programs / "pg_basebackup", "-D", str(data), *source, *copy)
            if self._tls:
                (data / "pg_hba.conf").write_text(_ACCESS_WITH_TLS)
                self._tls.write_to(data, self._group.account)
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
            "max_connections": "200",
        }
        if self._tls:
            settings |= {
                "ssl": "on",
                "ssl_cert_file": "server.pem",
                "ssl_key_file": "server.key",
                "ssl_ca_file": "ca.pem",
            }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return self._group.spawn(programs / "postgres", "-D", str(data), "-p", str(self.port), *options, env=self._env)

    def _run_to_end(self, *command: str | Path) -> None:
        status = self._group.spawn(*command, env=self._env).wait(self.start_timeout)
        self._group.kill()
        if status != 0:
            raise ServerError(f"{command[0]} exited with code {status}")

    def _hand_over_folder(self) -> None:
        if self._group.account is None:
            return
        if blocked := [parent for parent in self.folder.absolute().parents if not parent.stat().st_mode & 0o001]:
            raise ServerError(f"as root it runs as `nobody`, who may not enter {blocked[0]}: use new_folder()")
        os.chown(self.folder, self._group.account, self._group.account)

    def _answers(self) -> bool:
        try:
            directory = self.ask("SHOW data_directory")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return directory == str(self.folder.absolute() / "data")


class PgBouncerServer(PrivateServer):
    """PgBouncer in transaction pooling mode in front of a PostgreSQL server."""

    name = "PgBouncer"
    _stop_signal = signal.SIGINT  # after running transactions; SIGTERM would wait for clients to disconnect
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path, server_url: str, connections: int = 3) -> None:
        """Limit each database to ``connections`` server connections."""
        super().__init__(folder)
        self.port = free_port()
        self._server = urlsplit(server_url)
        self._connections = connections
        if os.geteuid() == 0:  # it refuses to run as root
            self._group.account = pwd.getpwnam("nobody").pw_uid

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of a database of the server."""
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
            "server_idle_timeout": 5,  # test databases are short-lived
            # Look at each connection before it is used again: its session ends when a database is emptied for the next
            # test.
            "server_check_delay": 0,
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
    """A RabbitMQ broker with its own epmd; ``guest`` has all rights.

    With ``joins``, a further node of a cluster, which uses the epmd of the node that it joins.
    """

    COUNTED_EVERY = 5.0
    """Seconds between two updates of a quorum queue's message counts."""

    name = "RabbitMQ"
    _stop_signal = signal.SIGTERM
    _quick_stop_signal = signal.SIGKILL

    def __init__(
        self,
        folder: Path,
        joins: "RabbitMQServer | None" = None,
        virtual_hosts: Sequence[str] = (),
        tls: ServerFiles | None = None,
    ) -> None:
        """``virtual_hosts`` are created at the first start, beside the default one.

        With ``tls`` it also listens on ``tls_port``, for clients that have a certificate.
        """
        super().__init__(folder)
        self.port = free_port()
        self.tls_port = free_port()
        self._tls = tls
        self._virtual_hosts = virtual_hosts
        self._distribution_port = free_port()
        self._joins = joins
        self.epmd_port: int = joins.epmd_port if joins else free_port()
        self.node = f"test{self.port}@localhost"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def url_of(self, virtual_host: str) -> str:
        """Return the URL of a virtual host."""
        return f"{self.url}{virtual_host}"

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl``, which takes about a second; return its output."""
        command = (str(_rabbitmq_program("rabbitmqctl")), "--quiet", *arguments)
        env = {"PATH": os.environ["PATH"], **self._environment()}
        return subprocess.check_output(command, env=env, text=True)  # noqa: S603  (constant command)

    def unacknowledged(self) -> int:
        """Return the number of unacknowledged messages, at most ``COUNTED_EVERY`` seconds old."""
        told = self.control("list_queues", "messages_unacknowledged", "--formatter", "json")
        return sum(queue["messages_unacknowledged"] for queue in json.loads(told))

    def _launch(self) -> psutil.Popen:
        server, epmd = _rabbitmq_program("rabbitmq-server"), program("epmd")
        self._write_configuration()
        env = self._environment()
        if not self._joins:
            # The broker itself would start an epmd that outlives it.
            mapper = self._group.spawn(epmd, env=env)
            if not wait_until(self._epmd_answers, timeout=self.start_timeout) or mapper.poll() is not None:
                raise ServerError("epmd does not respond")
        return self._group.spawn(server, env=env)

    def _write_configuration(self) -> None:
        for name in ("mnesia", "log", "home"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].\n")
        cookie = self.folder / "home" / ".erlang.cookie"  # the same for all nodes of a cluster
        if not cookie.exists():
            cookie.write_text("tests")
            cookie.chmod(0o400)  # Erlang refuses other modes
        cluster = [self._joins.node, self.node] if self._joins else []
        if self._virtual_hosts:
            (self.folder / "definitions.json").write_text(_definitions(("/", *self._virtual_hosts)))
            definitions = [f"load_definitions = {self.folder.absolute()}/definitions.json"]
        else:
            definitions = []
        settings = (
            *definitions,
            *(f"cluster_formation.classic_config.nodes.{number} = {node}" for number, node in enumerate(cluster, 1)),
            "loopback_users = none",
            "log.file = false",
            "log.console = true",
            "log.console.level = warning",
            "vm_memory_high_watermark.absolute = 512MiB",
            "disk_free_limit.absolute = 50MB",
            *(self._tls_settings(self._tls) if self._tls else ()),
        )
        (self.folder / "rabbitmq.conf").write_text("\n".join(settings) + "\n")

    def _tls_settings(self, tls: ServerFiles) -> list[str]:
        tls.write_to(self.folder, None)
        folder = self.folder.absolute()
        return [
            f"listeners.ssl.default = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {folder}/ca.pem",
            f"ssl_options.certfile = {folder}/server.pem",
            f"ssl_options.keyfile = {folder}/server.key",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
        ]

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
                connection.sendall(b"\x00\x01n")  # NAMES_REQ: the reply has its port and nodes
                return connection.recv(4) == self.epmd_port.to_bytes(4, "big")
        except OSError:
            return False

    def _answers(self) -> bool:
        name = amqp.cluster_name(self.url)  # the node name, with the host's full name after the @
        return name is not None and name.split("@")[0] == self.node.split("@")[0]


def _definitions(virtual_hosts: Sequence[str]) -> str:
    """Return RabbitMQ definitions with virtual hosts and the user ``guest``, password ``guest``, with all rights."""
    salt = b"test"
    password = b64encode(salt + sha256(salt + b"guest").digest()).decode()
    guest = {"name": "guest", "password_hash": password, "hashing_algorithm": "rabbit_password_hashing_sha256"}
    rights = {"user": "guest", "configure": ".*", "write": ".*", "read": ".*"}
    return json.dumps(
        {
            "users": [{**guest, "tags": ["administrator"]}],
            "vhosts": [{"name": name} for name in virtual_hosts],
            "permissions": [{**rights, "vhost": name} for name in virtual_hosts],
        }
    )


class PrometheusServer(PrivateServer):
    """A Prometheus with ``prometheus.yml`` and ``rules.yml`` in its folder."""

    name = "Prometheus"
    _stop_signal = signal.SIGTERM
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path, configuration: str, rules: str) -> None:
        """Take the content of both files."""
        super().__init__(folder)
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(configuration)
        (folder / "rules.yml").write_text(rules)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, **parameters: str) -> dict[str, Any]:
        """Return the data of an API response, for example of ``query`` with the parameter ``query``."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, trust_env=False, verify=NO_TLS)
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


class ForkServer(PrivateServer):
    """Forks processes of the program; see ``harness.fork_server``. Its URL is the path of its socket.

    Args:
        folder: See ``PrivateServer``.
        source: The source of the program, which may be a modified copy.
        modules: What to import besides the program: modules with a ``main`` of their own.
    """

    name = "The fork server"
    _stop_signal = signal.SIGTERM
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path, source: Path = SOURCE, modules: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._pythonpath = f"{source}:{SOURCE.parent}"
        self._modules = modules
        self._socket = folder / "socket"

    @property
    def url(self) -> str:
        return str(self._socket)

    def _launch(self) -> psutil.Popen:
        self._socket.unlink(missing_ok=True)
        module = ("-m", "harness.fork_server")
        return self._group.spawn(
            sys.executable, *module, self._socket, *self._modules, env={"PYTHONPATH": self._pythonpath}
        )

    def _answers(self) -> bool:
        return self._socket.exists()


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """Run ``promtool``, which must succeed, and return its output.

    Raises:
        ServerError: it failed, or it is not installed.
    """
    try:
        path = program("promtool")
    except ServerError as error:
        raise ServerError(f"{error}. {ADVICE['Prometheus']}.") from error
    checked = subprocess.run(  # noqa: S603  (constant command)
        [path, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    if checked.returncode:
        raise ServerError(f"promtool {arguments}: {checked.stdout}{checked.stderr}")
    return checked.stdout


def new_folder() -> Path:
    """Create a folder for a server, outside pytest's folders, which another user may not enter."""
    return Path(tempfile.mkdtemp(prefix="image-service-tests-"))


def _postgres_programs() -> Path:
    """Return the program folder of the newest PostgreSQL."""
    installed = [initdb.parent for initdb in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if installed:
        return max(installed, key=lambda folder: int(folder.parent.name))
    return program("initdb").resolve().parent


def _rabbitmq_program(name: str) -> Path:
    """Return a RabbitMQ program; Debian's wrapper on the PATH would change the user."""
    real = Path("/usr/lib/rabbitmq/bin", name)
    return real if real.exists() else program(name)


def program(name: str) -> Path:
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
    if found := shutil.which(name, path=path):
        return Path(found)
    raise ServerError(f"there is no `{name}` on this machine")
