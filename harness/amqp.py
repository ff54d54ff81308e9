"""A minimal AMQP 0-9-1 client that reads a broker's cluster name."""

import socket
from typing import IO
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame
from pamqp.exceptions import PAMQPException

TIMEOUT = 5.0


def cluster_name(url: str) -> str | None:
    """Return the cluster name once the broker lets the URL's user open the virtual host; else None."""
    parts = urlsplit(url)
    address = (parts.hostname or "localhost", parts.port or 5672)
    credentials = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
    virtual_host = unquote(parts.path[1:]) or "/"
    try:
        with socket.create_connection(address, timeout=TIMEOUT) as connection, connection.makefile("rb") as replies:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            start = _read(replies)
            connection.sendall(frame.marshal(commands.Connection.StartOk(response=credentials), 0))
            tune = _read(replies)
            if not isinstance(start, commands.Connection.Start) or not isinstance(tune, commands.Connection.Tune):
                return None
            connection.sendall(
                frame.marshal(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, heartbeat=0), 0)
                + frame.marshal(commands.Connection.Open(virtual_host), 0)
            )
            if not isinstance(_read(replies), commands.Connection.OpenOk):
                return None
            connection.sendall(frame.marshal(commands.Connection.Close(200, "", 0, 0), 0))
            _read(replies)
    except (OSError, PAMQPException):
        return None
    return str((start.server_properties or {}).get("cluster_name", ""))


def _read(replies: IO[bytes]) -> object:
    head = replies.read(7)
    return frame.unmarshal(head + replies.read(int.from_bytes(head[3:7], "big") + 1))[2]
