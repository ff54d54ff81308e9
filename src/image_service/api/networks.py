"""What one client can be assumed to have of the network: by it, shares of what is scarce are counted."""

from contextlib import suppress
from ipaddress import IPv6Address


def network_of(client: str) -> str:
    """Returns an IPv4 address as it is, and of an IPv6 address the first 64 bits.

    Args:
        client: The client's address, or anything else that a proxy says instead.
    """
    if ":" in client:
        with suppress(ValueError):
            address = IPv6Address(client)
            return str(address.ipv4_mapped or int(address) >> 64)
    return client
