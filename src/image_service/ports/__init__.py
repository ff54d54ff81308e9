"""What the use cases need from the outside world, and what each adapter owes them.

An obligation written here is tested on every adapter by one suite in ``tests/contract``.
"""

from image_service.ports.observer import NULL_OBSERVER, AttemptOutcome, NullObserver, Observer
from image_service.ports.queue import DeadLetter, DeadLetters, Delivery, Drain, Handler, RetryResult, TaskQueue
from image_service.ports.renderer import Inspector, Renderer
from image_service.ports.storage import ObjectAttributes, PresignedUrls, Storage, StoredObject

__all__ = [
    "NULL_OBSERVER",
    "AttemptOutcome",
    "DeadLetter",
    "DeadLetters",
    "Delivery",
    "Drain",
    "Handler",
    "Inspector",
    "NullObserver",
    "ObjectAttributes",
    "Observer",
    "PresignedUrls",
    "Renderer",
    "RetryResult",
    "Storage",
    "StoredObject",
    "TaskQueue",
]
