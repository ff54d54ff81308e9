"""Sending to addresses that users chose."""

from image_service.config import Settings
from image_service.outbound.addresses import AddressPolicy
from image_service.outbound.client import GuardedClient
from image_service.ports import Outbound


def make_outbound(settings: Settings) -> Outbound:
    """Returns what sends webhooks, and checks their URLs; the HTTP library is loaded at the first request."""
    return GuardedClient(AddressPolicy(settings.outbound_allow))
