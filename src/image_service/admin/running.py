"""Runs a command with the services for operators."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

import uvloop

from image_service.bootstrap import AdminServices, admin_services, open_resources
from image_service.config import Settings
from image_service.observability.logging import configure_logging

Say: TypeAlias = Callable[[str], None]
"""Shows a line."""
T = TypeVar("T")


def run_with_services(settings: Settings, work: Callable[[AdminServices], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine with the services for operators. Warnings and errors are logged to standard error."""
    configure_logging("WARNING", settings.log_format, sys.stderr)

    async def run() -> T:
        async with open_resources(settings) as resources:
            return await work(admin_services(settings, resources))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())
