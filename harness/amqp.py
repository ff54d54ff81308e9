"""A minimal AMQP 0-9-1 client that reads the name of a broker's cluster."""

import socket
from typing import IO
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame
from pamqp.exceptions import PAMQPException

TIMEOUT = 5.0


def cluster_name(url: str) -> str | None:
    """The name of the broker's cluster; None if the URL's user cannot open the virtual host."""
    parts = urlsplit(url)
    address = (parts.hostname or "localhost", parts.port or 5672)
    credentials = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
    virtual_host = unquote(parts.path[1:]) or "/"
    try:
        with socket.create_connection(address, timeout=TIMEOUT) as connection, connection.makefile("rb") as answers:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            start = _read(answers)
            connection.sendall(frame.marshal(commands.Connection.StartOk(response=credentials), 0))
            tune = _read(answers)
            if not isinstance(start, commands.Connection.Start) or not isinstance(tune, commands.Connection.Tune):
                return None
            connection.sendall(
                frame.marshal(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, heartbeat=0), 0)
                + frame.marshal(commands.Connection.Open(virtual_host), 0)
            )
            if not isinstance(_read(answers), commands.Connection.OpenOk):
                return None
            connection.sendall(frame.marshal(commands.Connection.Close(200, "", 0, 0), 0))
            _read(answers)
    except (OSError, PAMQPException):
        return None
    return str((start.server_properties or {}).get("cluster_name", ""))


def _read(answers: IO[bytes]) -> object:
    head = answers.read(7)
    return frame.unmarshal(head + answers.read(int.from_bytes(head[3:7], "big") + 1))[2]
