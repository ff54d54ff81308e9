"""Which IP addresses may be sent to.

The list is our own: ``ipaddress.is_global`` depends on Python's version, and 3.11's takes multicast, IPv4-compatible,
NAT64 and site-local addresses for global ones. Sources: IANA's registries of special-purpose addresses.
"""

from collections.abc import Sequence
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by customers of a provider
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # services of Azure for its machines
            "169.254.0.0/16",  # link-local, and the metadata of cloud providers
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All else is not public: among others loopback, addresses that contain an IPv4 one, NAT64, and private ones."""
_NOT_PUBLIC_V6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which contains an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)


class Reach(Enum):
    """How an address may be sent to."""

    REFUSED = auto()
    PUBLIC = auto()
    """By https, at its standard port."""
    ALLOWED = auto()
    """The operator allowed it: also by http, and at any port."""


class AddressPolicy:
    """Decides about addresses. Networks that are allowed are so in addition to public addresses."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    @property
    def allows_networks(self) -> bool:
        """Whether anything but public addresses is allowed."""
        return bool(self._allowed)

    def reach(self, address: Address) -> Reach:
        """Return how an address may be sent to. One with a zone id never is: it names a link of this machine."""
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return Reach.REFUSED
        if any(address in network for network in self._allowed):
            return Reach.ALLOWED
        return Reach.PUBLIC if _is_public(address) else Reach.REFUSED


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_V6)
