"""Logging is the process's own: what a test makes of it must not reach the next one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def logging_kept() -> Iterator[None]:
    """Leave logging as it was, whatever the block configures."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    levels = {logger: logger.level for logger in loggers}
    handlers = list(logging.root.handlers)
    try:
        yield
    finally:
        logging.root.handlers = handlers
        for logger in (logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)):
            logger.setLevel(levels.get(logger, logging.NOTSET))
        structlog.reset_defaults()
