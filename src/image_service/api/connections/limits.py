"""The bounds on connections and request heads, and how many connections the limit of open files allows."""

import resource
from dataclasses import dataclass
from typing import Final

MAX_URL: Final = 8 * 1024
"""Bytes of a request's target, as with nginx and Apache; the service's own are below 200."""
MAX_HEADER_LINE: Final = 8 * 1024
"""Bytes of one header line: name, colon, blank and value. Cookies of other applications on a host need some."""
MAX_HEAD: Final = 32 * 1024
"""Bytes of a request's head. Also of a chunked body's framing (sizes, extensions, trailers), beyond what its content
justifies."""
MAX_HEADER_LINES: Final = 100
"""Header lines of a head, and trailer lines of a chunked body."""
FRAMING_PER_BYTE: Final = 16
"""Bytes of framing that a chunked body may have for each byte of content: chunks of one byte need five."""
CHUNKED_STEP: Final = 1024
"""Bytes of a chunked body that are parsed at once at least, however many blank lines are in them: bounds the time."""
MAX_DISCARDED: Final = 1024 * 1024
"""Bytes that are read and thrown away after a refusal, so that the client gets to read the response."""
MAX_CONNECTIONS: Final = 4096
"""Connections of one process: the memory of one is 0.4 MB at worst."""

_DESCRIPTORS_PER_CONNECTION: Final = 2
"""The socket, and the file that is received or sent."""
_RESERVED_DESCRIPTORS: Final = 64
"""For everything else: database, broker, object storage, decoder processes, log, listening sockets."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """How many connections there may be, and how long each may wait for its client. All times are seconds."""

    max_connections: int = MAX_CONNECTIONS
    head_timeout: float = 15.0
    """For a request's head: from the connect, or from the first byte of a later one. Slow networks need a few."""
    keep_alive: float = 75.0
    """An idle connection stays open longer than with load balancers, so that they reuse no closed one."""
    discard_timeout: float = 300.0
    """For the rest of a body whose request is answered already: most clients read the response only after it."""
    write_timeout: float = 30.0
    """Without one byte of the response acknowledged by the client."""
    drain_timeout: float = 5.0
    """Without one byte from or to the client while the process ends: then it waits for this client no longer."""
    first_request: float = 2.0
    """For the first request of a connection while the process ends: the client may be sending it."""
    linger: float = 2.0
    """For the client to read a refusal, before the connection is closed."""

    @property
    def interval(self) -> float:
        """Seconds between two looks at all connections: by so much may a limit be exceeded."""
        return min(1.0, min(self.head_timeout, self.keep_alive, self.write_timeout, self.drain_timeout) / 4)


def raise_descriptor_limit() -> int:
    """Allows this process as many open files as the system permits; returns their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # unlimited, and more than the kernel's own limit
        return soft
    return hard


def connections_within(descriptors: int, wanted: int | None = None) -> int:
    """Returns how many connections fit within a limit of open files, at most the wanted number."""
    wanted = wanted or MAX_CONNECTIONS
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    free = max(descriptors - _RESERVED_DESCRIPTORS, descriptors // 2)
    return max(1, min(wanted, free // _DESCRIPTORS_PER_CONNECTION))
