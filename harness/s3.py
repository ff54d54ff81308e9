"""A private S3 server and its buckets.

    with SeaweedServer(new_folder()) as s3:
        s3.kill()
        s3.start()  # the same port and data

A server's URL is ``http://access-key:secret-key@host:port``.
"""

import json
import os
import secrets
import signal
import sys
from datetime import timedelta
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import psutil
from obstore import sign
from obstore.exceptions import BaseError
from obstore.store import S3Store

from harness.processes import ServerError, free_port
from harness.servers import ADVICE, PrivateServer, program

if TYPE_CHECKING:
    from obstore.store import S3Config

ADVICE["SeaweedFS"] = (
    "on Linux it comes with the development requirements, which `make test` installs, or set TEST_S3_URL to a server "
    "of yours (http://access-key:secret-key@host:port)"
)
ANSWER_LIMIT = 5.0
_OPENER = build_opener(ProxyHandler({}))


class SeaweedServer(PrivateServer):
    """SeaweedFS in one process; it creates buckets on request."""

    name = "SeaweedFS"
    _stop_signal = signal.SIGTERM
    _quick_stop_signal = signal.SIGKILL

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._filer = free_port()
        # Random: a server that accepts it is this one, and not another one on the same port.
        self._secret = secrets.token_hex()
        parts = ("master", "volume", "filer", "s3")
        self._ports = {"filer.port": self._filer, "s3.port": self.port}
        self._ports |= {f"{part}.port": free_port() for part in ("master", "volume")}
        self._ports |= {f"{part}.port.grpc": free_port() for part in parts}

    @property
    def url(self) -> str:
        return f"http://tests:{self._secret}@127.0.0.1:{self.port}"

    def parts(self, bucket: str) -> list[str]:
        """Return the stored parts of unfinished uploads."""
        uploads = self._listed(f"/buckets/{bucket}/.uploads/")
        return [part for upload in uploads for part in self._listed(f"{upload}/")]

    def _listed(self, folder: str) -> list[str]:
        question = Request(f"http://127.0.0.1:{self._filer}{folder}")
        question.add_header("Accept", "application/json")
        try:
            with _OPENER.open(question, timeout=ANSWER_LIMIT) as answer:
                return [entry["FullPath"] for entry in json.load(answer)["Entries"] or []]
        except HTTPError as error:
            if error.code == 404:
                return []
            raise

    def close(self) -> None:
        super().close()
        for port in self._ports.values():
            for left_behind in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108  (where it puts them)
                left_behind.unlink()

    def _launch(self) -> psutil.Popen:
        for name in ("data", "home"):
            (self.folder / name).mkdir(exist_ok=True)
        credentials = [{"accessKey": "tests", "secretKey": self._secret}]
        everything = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [{"name": "tests", "credentials": credentials, "actions": everything}]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}))
        options = {
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "dir": f"{self.folder.absolute()}/data",
            "volume.max": 50,
            "master.volumeSizeLimitMB": 64,
            "filer": "true",
            "s3": "true",
            "s3.config": f"{self.folder.absolute()}/s3.json",
            "filer.localSocket": f"{self.folder.absolute()}/filer.sock",
            "s3.localSocket": f"{self.folder.absolute()}/s3.sock",
            # Would otherwise listen on fixed ports.
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            **self._ports,
        }
        words = [f"-{name}={value}" for name, value in options.items()]
        env = {"HOME": f"{self.folder.absolute()}/home"}
        return self._group.spawn(_weed(), "-v=0", "server", *words, env=env)

    def _answers(self) -> bool:
        try:
            make_bucket(self.url, "ready")
            _bucket(self.url, "ready").put("ready", b"")  # possible some seconds later
        except (ServerError, BaseError):
            return False
        return True


def make_bucket(url: str, name: str) -> None:
    """Create a bucket if it does not exist."""
    signed = Request(sign(_bucket(url, name), "PUT", "", timedelta(minutes=1)), method="PUT")  # noqa: S310  (our own server)
    try:
        _OPENER.open(signed, timeout=ANSWER_LIMIT).close()
    except HTTPError as error:
        if error.code != 409:
            raise ServerError(f"the bucket {name} cannot be made: {error}") from error
    except (OSError, HTTPException) as error:
        raise ServerError(f"the bucket {name} cannot be made: {error}") from error


def _bucket(url: str, name: str) -> S3Store:
    return S3Store(
        name,
        config=_access(url),
        client_options={"allow_http": True, "timeout": timedelta(seconds=ANSWER_LIMIT)},
        retry_config={"max_retries": 0},
    )


def environment(url: str) -> dict[str, str]:
    """Return the environment variables for clients."""
    access = _access(url)
    return {
        "AWS_ACCESS_KEY_ID": access["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": access["secret_access_key"],
        "AWS_ENDPOINT_URL": access["endpoint"],
        "AWS_REGION": access["region"],
    }


def _access(url: str) -> "S3Config":
    parts = urlsplit(url)
    assert parts.username
    assert parts.password
    return {
        "access_key_id": parts.username,
        "secret_access_key": parts.password,
        "endpoint": f"{parts.scheme}://{parts.hostname}:{parts.port}",
        "region": "us-east-1",
    }


def _weed() -> Path:
    """Return the program, which the wheel installs beside the interpreter."""
    beside = Path(sys.executable).with_name("weed")
    return beside if os.access(beside, os.X_OK) else program("weed")
