"""The port ``Outbound``. The HTTP library is loaded at the first request: who sends nothing needs no memory for it."""

import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from image_service.errors import UrlNotAllowed
from image_service.outbound.addresses import AddressPolicy
from image_service.outbound.resolver import Resolve, Resolver
from image_service.outbound.urls import parse
from image_service.ports import Answer, OutboundFailed
from image_service.tls import web_tls

if TYPE_CHECKING:
    from image_service.outbound.requests import Requests

BODY_SECONDS: Final = 2.0
"""For the body of an answer: its status has decided, and what follows is for people to read."""


class GuardedClient:
    """Sends to addresses that the policy allows.

    Args:
        policy: which addresses may be sent to.
        resolve: looks up names; by default as the system does.
        tls: makes the context that servers are verified with; by default by the authorities that the system trusts.
        body_timeout: seconds that the beginning of an answer's body has to arrive.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        resolve: Resolve | None = None,
        tls: Callable[[], ssl.SSLContext] = web_tls,
        body_timeout: float = BODY_SECONDS,
    ) -> None:
        self._policy = policy
        self._resolve = resolve or Resolver()
        self._tls = tls
        self._body_timeout = body_timeout
        self._requests: Requests | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def check_url(self, url: str) -> None:
        """See ``Outbound.check_url``."""
        parse(url, self._policy)

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:  # noqa: ASYNC109 — see the port
        """See ``Outbound.post``."""
        try:
            target = parse(url, self._policy)
        except UrlNotAllowed:
            raise OutboundFailed("url-not-allowed") from None
        if self._requests is None:
            from image_service.outbound.requests import Requests  # noqa: PLC0415 — see above

            self._requests = Requests(
                policy=self._policy, resolve=self._resolve, tls=self._tls(), body_timeout=self._body_timeout
            )
        return await self._requests.post(target, headers, body, timeout)

    async def close(self) -> None:
        """See ``Outbound.close``."""
        if self._requests is not None:
            await self._requests.close()
            self._requests = None
