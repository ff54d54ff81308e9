"""A private Azure Blob Storage server and its containers.

    with AzuriteServer(new_folder()) as azure:
        make_container(azure.url, "images")

A server's URL is ``http://account:key@host:port``, with the key percent-encoded.
"""

import hmac
import secrets
import signal
from base64 import b64decode, b64encode
from email.utils import formatdate
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import psutil

from harness.processes import SOURCE, ServerError, free_port
from harness.servers import ADVICE, PrivateServer, program

ADVICE["Azurite"] = (
    "`make test-servers` installs it (by hand: npm install --global azurite), or set TEST_AZURE_URL to a server of "
    "yours (http://account:key@host:port, with the key percent-encoded)"
)
ANSWER_LIMIT = 5.0
_ACCOUNT = "tests"
_INSTALLED = SOURCE.parent / ".azurite" / "node_modules" / ".bin" / "azurite-blob"
_OPENER = build_opener(ProxyHandler({}))


class AzuriteServer(PrivateServer):
    """Azurite's blob service. Its data are in memory, and lost when it stops."""

    name = "Azurite"
    _stop_signal = signal.SIGTERM
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        # Random: a server that accepts it is this one, and not another one on the same port.
        self._key = b64encode(secrets.token_bytes(32)).decode()

    @property
    def url(self) -> str:
        return f"http://{_ACCOUNT}:{quote(self._key, safe='')}@127.0.0.1:{self.port}"

    def _launch(self) -> psutil.Popen:
        azurite = _INSTALLED if _INSTALLED.exists() else program("azurite-blob")
        address = ("--blobHost", "127.0.0.1", "--blobPort", str(self.port))
        # obstore speaks a version of the API that is newer than Azurite's, and uses nothing new of it.
        options = ("--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent")
        return self._group.spawn(azurite, *address, *options, env={"AZURITE_ACCOUNTS": f"{_ACCOUNT}:{self._key}"})

    def _answers(self) -> bool:
        try:
            make_container(self.url, "ready")
        except ServerError:
            return False
        return True


def make_container(url: str, name: str) -> None:
    """Create a container if it does not exist."""
    access = environment(url)
    account, key = access["AZURE_STORAGE_ACCOUNT_NAME"], access["AZURE_STORAGE_ACCOUNT_KEY"]
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
    lines = ["PUT", *[""] * 11, *(f"{header}:{value}" for header, value in headers.items())]
    signed = "\n".join([*lines, f"/{account}/{account}/{name}", "restype:container"])
    signature = b64encode(hmac.digest(b64decode(key), signed.encode(), "sha256")).decode()
    creation = Request(  # noqa: S310  (our own server)
        f"{access['AZURE_STORAGE_ENDPOINT']}/{name}?restype=container",
        method="PUT",
        headers={**headers, "Authorization": f"SharedKey {account}:{signature}"},
    )
    try:
        _OPENER.open(creation, timeout=ANSWER_LIMIT).close()
    except HTTPError as error:
        if error.code != 409:
            raise ServerError(f"the container {name} cannot be made: {error}") from error
    except (OSError, HTTPException) as error:
        raise ServerError(f"the container {name} cannot be made: {error}") from error


def environment(url: str) -> dict[str, str]:
    """Return the environment variables for clients."""
    parts = urlsplit(url)
    assert parts.username
    assert parts.password
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": parts.username,
        "AZURE_STORAGE_ACCOUNT_KEY": unquote(parts.password),
        "AZURE_STORAGE_ENDPOINT": f"{parts.scheme}://{parts.hostname}:{parts.port}/{parts.username}",
    }
