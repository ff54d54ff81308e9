"""The program with retries and leases of events that take seconds instead of hours.

    python -m tests.faults.short_schedule api|worker|standalone …

The real program with its own command line; the product contains no switch for this.
"""

import functools

from image_service.cli import main as image_service
from image_service.domain import delivery_schedule
from image_service.services import event_relay, webhook_sending

TRIES = 200
"""Of a delivery: more than a failing endpoint ever takes here."""
RETRY_DELAYS = (0.2, 0.5, *(1.0,) * (TRIES - 3))
"""Seconds."""
LEASE = 4.0
"""Seconds for which one worker publishes to the exchange, unless it extends that."""
POLL = 0.3
MARGIN = 3.0
"""Seconds by which the lease of a delivery is longer than its endpoint has to answer."""


def shorten() -> None:
    """Shorten the schedule of deliveries and the relay's lease in this process."""
    delivery_schedule.RETRY_DELAYS = RETRY_DELAYS  # type: ignore[misc,assignment]  # final in the product
    delivery_schedule.MAX_TRIES = TRIES  # type: ignore[misc]  # the same
    webhook_sending._LEASE_MARGIN = MARGIN  # type: ignore[misc]  # the same
    timing = event_relay.RelayTiming
    event_relay.RelayTiming = functools.partial(timing, lease=LEASE, poll=POLL)  # type: ignore[misc,assignment]  # the same


def main() -> None:
    """Run the program."""
    shorten()
    image_service()


if __name__ == "__main__":
    main()
