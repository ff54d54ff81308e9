"""Interfaces that the use cases depend on; adapters implement them.

``tests/contract`` tests what the docstrings here require, with the same suite for every adapter.
"""

from image_service.ports.events import NULL_SIGNAL, PUBLISH_LIMIT, EncodedEvent, EventExchange, EventSignal
from image_service.ports.observer import NULL_OBSERVER, AttemptOutcome, NullObserver, Observer
from image_service.ports.outbound import Answer, Outbound, OutboundFailed
from image_service.ports.queue import DeadLetter, DeadLetters, Delivery, Drain, Handler, RetryResult, TaskQueue
from image_service.ports.renderer import Inspector, Renderer
from image_service.ports.storage import ObjectAttributes, PresignedUrls, Storage, StoredObject, no_links

__all__ = [
    "NULL_OBSERVER",
    "NULL_SIGNAL",
    "PUBLISH_LIMIT",
    "Answer",
    "AttemptOutcome",
    "DeadLetter",
    "DeadLetters",
    "Delivery",
    "Drain",
    "EncodedEvent",
    "EventExchange",
    "EventSignal",
    "Handler",
    "Inspector",
    "NullObserver",
    "ObjectAttributes",
    "Observer",
    "Outbound",
    "OutboundFailed",
    "PresignedUrls",
    "Renderer",
    "RetryResult",
    "Storage",
    "StoredObject",
    "TaskQueue",
    "no_links",
]
