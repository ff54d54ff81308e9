"""Certificates for servers and clients, of an authority that exists for one test module only."""

import os
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, kw_only=True)
class ServerFiles:
    """What a server with TLS needs, in PEM format."""

    authority: bytes
    certificate: bytes
    key: bytes

    def write_to(self, folder: Path, account: int | None) -> None:
        """Write ca.pem, server.pem and server.key, the key readable by the account only; None: by this process."""
        for name, content in {"ca.pem": self.authority, "server.pem": self.certificate, "server.key": self.key}.items():
            file = folder / name
            file.write_bytes(content)
            file.chmod(0o600)
            if account is not None:
                os.chown(file, account, account)


@dataclass(frozen=True, kw_only=True)
class ClientFiles:
    """Files for a client: the server's authority, another one, and the client's certificate with its key."""

    authority: Path
    other_authority: Path
    certificate: Path
    key: Path


class Authority:
    """Issues certificates."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    def server(self, host: str) -> ServerFiles:
        """Return the files of a server that clients reach under a host name."""
        issued = self._authority.issue_cert(host)
        return ServerFiles(
            authority=self._authority.cert_pem.bytes(),
            certificate=b"".join(part.bytes() for part in issued.cert_chain_pems),
            key=issued.private_key_pem.bytes(),
        )

    def client(self, user: str, folder: Path) -> ClientFiles:
        """Write the files of a client that is known to servers as a user."""
        files = ClientFiles(
            authority=folder / "ca.pem",
            other_authority=folder / "other-ca.pem",
            certificate=folder / "client.pem",
            key=folder / "client.key",
        )
        issued = self._authority.issue_cert(f"{user}.example", common_name=user)
        self._authority.cert_pem.write_to_path(files.authority)
        trustme.CA().cert_pem.write_to_path(files.other_authority)
        files.certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(files.key)
        return files
