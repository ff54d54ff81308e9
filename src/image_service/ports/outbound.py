"""Sending to addresses that users chose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class OutboundFailed(Exception):
    """Nothing usable was answered. It may have been received all the same.

    The reason is one of: ``url-not-allowed``, ``address-not-allowed``, ``name-not-found``, ``name-lookup-failed``,
    ``connect-failed``, ``certificate-invalid``, ``tls-failed``, ``connection-closed``, ``malformed-answer``,
    ``answer-too-large`` and ``timed-out``. It names no address: private ones are nothing for users.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a receiver answered, whatever its status: a redirect is not followed."""

    status: int
    headers: Mapping[str, str]
    """Only ``retry-after``, in lower case, if there was one."""
    body: bytes
    """The first KB, or less if the rest did not arrive soon after the status."""


class Outbound(Protocol):
    """Sends to addresses that users chose, but never to one that is not allowed."""

    def check_url(self, url: str) -> None:
        """Check how a URL is written; no name is looked up.

        Raises:
            UrlNotAllowed: nothing would be sent to it, wherever its name leads.
        """
        ...

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:  # noqa: ASYNC109 — the adapter ends its connection, too
        """Send a POST request. The caller bounds the size of the body, and how many are sent at once.

        Args:
            url: where to; checked here again, as is each address that its name leads to.
            headers: in addition to Host, Content-Length, Accept-Encoding and User-Agent.
            body: as it is sent.
            timeout: seconds from looking up the name to the answer's status; what follows has 2 more.

        Raises:
            OutboundFailed: there was no answer.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
