"""Connections: all that a client can send or leave unread before and after the application, and its bounds."""

from image_service.api.connections.connection import Connection
from image_service.api.connections.limits import ConnectionLimits, connections_within, raise_descriptor_limit
from image_service.api.connections.open import REASONS, OpenConnections

__all__ = [
    "REASONS",
    "Connection",
    "ConnectionLimits",
    "OpenConnections",
    "connections_within",
    "raise_descriptor_limit",
]
