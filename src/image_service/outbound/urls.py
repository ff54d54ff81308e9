"""Which URLs may be sent to, as far as their spelling tells.

The syntax is strict (RFC 3986, ASCII only), and read once: what is checked is what is dialled. Spellings that only some
programs take for an address, such as ``127.1``, ``0x7f.1`` and ``2130706433``, are refused, and never resolved.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from image_service.errors import UrlNotAllowed
from image_service.outbound.addresses import Address, AddressPolicy, Reach

MAX_LENGTH: Final = 2048
"""Characters of a URL."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)"
    r"(?P<port>:[0-9]{1,5})?"
    r"(?P<path>/[a-z0-9._~:/@!$&'()*+,;=%-]*)?"
    r"(?P<query>\?[a-z0-9._~:/?@!$&'()*+,;=%-]*)?",
    re.IGNORECASE | re.ASCII,
)
_NAME: Final = re.compile(r"(?=.{1,253}\Z)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
"""As the last part of a name, which browsers and ``getaddrinfo`` then take for an IPv4 address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that was checked, in parts."""

    scheme: str
    host: str
    """A name in lower case, or an address without brackets."""
    address: Address | None
    """The host, if it is an address."""
    port: int
    path: str
    """With the query."""

    @property
    def host_header(self) -> str:
        """The value of the request's header Host."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def needs(self) -> Reach:
        """What each address that the host leads to must be, at least."""
        named = self.address is not None or "." in self.host
        return (
            Reach.PUBLIC if named and self.scheme == "https" and self.port == _DEFAULT_PORTS["https"] else Reach.ALLOWED
        )


def parse(url: str, policy: AddressPolicy) -> Target:
    """Return the parts of a URL. The addresses that its name leads to are still to be checked.

    Raises:
        UrlNotAllowed: nothing may be sent to it, and why.
    """
    target = _split(url)
    if target.address is not None:
        if not reaches(policy.reach(target.address), target.needs):
            raise UrlNotAllowed(
                "Nothing is sent to this address. Send a URL with https:// and a public address at port 443, or have "
                "OUTBOUND_ALLOW name its network."
            )
    elif target.needs is Reach.ALLOWED and not policy.allows_networks:
        raise UrlNotAllowed(
            "A URL must have https://, a host name with a dot, and no port but 443. Send such a URL, or have "
            "OUTBOUND_ALLOW name the receiver's network."
        )
    return target


def reaches(reach: Reach, needed: Reach) -> bool:
    """Return whether an address that may be sent to so is good enough."""
    return reach is Reach.ALLOWED or reach is needed


def _split(url: str) -> Target:
    if len(url) > MAX_LENGTH:
        raise UrlNotAllowed(f"The URL is longer than {MAX_LENGTH} characters. Send a shorter one.")
    if "#" in url:
        raise UrlNotAllowed("A fragment (#…) is never sent. Send the URL without it.")
    match = _URL.fullmatch(url)
    if match is None:
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise UrlNotAllowed("A user name or password in a URL is not supported. Check the signature instead.")
        raise UrlNotAllowed(
            "This is no URL with https:// in ASCII characters. Percent-encode others, and send an international "
            "domain name in its form with xn--."
        )
    scheme, host = match["scheme"].lower(), match["host"].lower()
    port = int(match["port"][1:]) if match["port"] else _DEFAULT_PORTS[scheme]
    if not 0 < port < 2**16:
        raise UrlNotAllowed("The port must be from 1 to 65535. Send a URL with the right one, or with none.")
    address = _address(host)
    return Target(
        scheme=scheme,
        host=host if address is None else str(address),
        address=address,
        port=port,
        path=(match["path"] or "/") + (match["query"] or ""),
    )


def _address(host: str) -> Address | None:
    """Returns the host as an address; None if it is a name."""
    try:
        return IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError:
        pass
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise UrlNotAllowed("The host is no complete IPv4 address. Send one with four decimal numbers, or a name.")
    if not _NAME.fullmatch(host):
        raise UrlNotAllowed("The host is no valid name. Send one such as hooks.example.org, without a dot at its end.")
    return None
