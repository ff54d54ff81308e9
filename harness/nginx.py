"""nginx in front of the service, with the configuration that docs/scaling.md shows."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from harness.processes import ServerError, free_port, wait_until
from harness.servers import ADVICE

_SCALING: Final = Path(__file__).parents[1] / "docs/scaling.md"
_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def _program() -> str:
    """Returns the path of nginx, which TEST_NGINX may name.

    Raises:
        ServerError: it is not installed.
    """
    found = os.environ.get("TEST_NGINX") or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise ServerError(f"nginx is not installed. {ADVICE['nginx']}.")
    return found


def examples() -> list[str]:
    """Returns the examples of a configuration: a proxy, and a cache for thumbnails."""
    return re.findall(r"```nginx\n(.*?)```", _SCALING.read_text(), re.DOTALL)


def with_cache(location: str | None = None) -> str:
    """Returns the configuration of a proxy that is a cache too.

    Args:
        location: Another location with a cache, instead of that of the example.
    """
    proxy, cache = examples()
    path, server = cache.split("server {", 1)
    end = server.rindex("}")
    chosen = location or server[:end]
    return path + proxy.replace("    location / {", f"{chosen}\n    location / {{", 1)


@contextmanager
def nginx(url: str, sites: str, folder: Path) -> Iterator[str]:
    """Runs nginx for the duration of the block; yields its address.

    Args:
        url: The address of the service.
        sites: Its configuration, with the addresses of the examples.
        folder: Where it may write.

    Raises:
        ServerError: it is not installed, or does not start.
    """
    port = free_port()
    servers = iter([f"server {url.partition('://')[2]};"])
    sites = re.sub(r"server 127\.0\.0\.1:\d+;", lambda _: next(servers, ""), sites)
    sites = re.sub(r"listen \d+;", f"listen 127.0.0.1:{port};", sites)
    sites = sites.replace("/var/cache/nginx", str(folder))
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in _TEMPORARY)
    # Started by root, its workers would be a user that cannot reach the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; {user} pid {folder}/pid; error_log {folder}/error.log; worker_rlimit_nofile 8192;"
        f"events {{ worker_connections 4096; }} http {{ access_log off; {temporary} {sites} }}"
    )
    with subprocess.Popen([_program(), "-c", configuration, "-e", f"{folder}/error.log"]) as server:  # noqa: S603 - our own configuration
        try:
            if not wait_until(lambda: _listens(port), timeout=10):
                raise ServerError("nginx does not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
