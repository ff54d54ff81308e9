"""Isolates the process-wide logging configuration of a test."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def logging_kept() -> Iterator[None]:
    """Start with no logger configured, and restore the configuration after the block."""
    structlog_before = structlog.get_config()
    before = {logger: (logger.level, logger.propagate, list(logger.handlers)) for logger in _loggers()}
    for logger in before:
        if logger is not logging.root:
            _configure(logger)
    try:
        yield
    finally:
        for logger in _loggers():
            _configure(logger, *before.get(logger, ()))
        structlog.configure(**structlog_before)


def _loggers() -> list[logging.Logger]:
    return [logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))]


def _configure(
    logger: logging.Logger,
    level: int = logging.NOTSET,
    propagate: bool = True,  # noqa: FBT001, FBT002  (a logger's attributes in a row)
    handlers: list[logging.Handler] | None = None,
) -> None:
    logger.setLevel(level)
    logger.propagate = propagate
    logger.handlers = handlers or []
