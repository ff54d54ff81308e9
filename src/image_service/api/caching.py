"""Cache policies of responses (RFC 9111)."""

from dataclasses import dataclass, replace
from typing import Final

_YEAR: Final = 31_536_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """Who may cache a response, and for how long."""

    public: bool
    """Whether shared caches may store it; otherwise only the client's own."""
    max_age: int | None = None
    """Seconds for which it may be reused; None: only after revalidation."""
    immutable: bool = False
    """Whether the content at this URL never changes."""
    vary: str | None = None
    """The request header that decides about the content; None: there is none."""

    def at_most(self, seconds: int) -> "CachePolicy":
        """Returns the same policy for content that is valid for so many seconds only."""
        if self.max_age is None:
            return self
        return replace(self, max_age=min(self.max_age, seconds), immutable=False)

    @property
    def header(self) -> str:
        """The value of the ``Cache-Control`` header."""
        scope = "public" if self.public else "private"
        age = "no-cache" if self.max_age is None else f"max-age={self.max_age}"
        return f"{scope}, {age}, immutable" if self.immutable else f"{scope}, {age}"

    @property
    def vary_header(self) -> dict[str, str]:
        """The ``Vary`` header, where there is one."""
        return {} if self.vary is None else {"Vary": self.vary}


PRIVATE_IMMUTABLE: Final = CachePolicy(public=False, max_age=_YEAR, immutable=True)
PUBLIC_IMMUTABLE: Final = CachePolicy(public=True, max_age=_YEAR, immutable=True)
REVALIDATE: Final = CachePolicy(public=True)
NEGOTIATED: Final = CachePolicy(public=True, vary="Accept")
"""For a URL at which the client's ``Accept`` decides. Revalidated, because many shared caches handle ``Vary`` badly."""

NO_STORE: Final = "no-store"
"""The ``Cache-Control`` header of responses that describe a momentary state."""
