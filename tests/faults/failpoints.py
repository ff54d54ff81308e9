"""Failpoints: actions injected into a process just before or after one of its effects.

Effects have names such as ``add.commit`` or ``original.rename``; ``instrumented`` defines them.
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Self

POLL = 0.01
ALWAYS = 1_000_000
"""For ``Failpoint.times``: every occurrence."""


class When(StrEnum):
    """Before or after the effect."""

    BEFORE = "before"
    AFTER = "after"


class Action(StrEnum):
    """What happens at a failpoint."""

    KILL = "kill"
    """SIGKILL."""
    STOP = "stop"
    """SIGSTOP: the process is stopped until SIGCONT."""
    HOLD = "hold"
    """The task or thread waits until it is released; the rest of the process goes on."""
    FAIL = "fail"
    """An outage: before the effect, it does not happen; after it, only its reply is lost."""
    DELAY = "delay"
    """The effect takes ``seconds`` longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failpoint:
    """An action at an effect."""

    act: Action
    when: When
    effect: str
    first: int = 1
    """The first occurrence of the effect that triggers it."""
    times: int = 1
    """Number of consecutive occurrences that trigger it."""
    seconds: float = 0.0

    @classmethod
    def at(cls, where: str, act: Action, *, times: int = 1, seconds: float = 0.0) -> Self:
        """Parse ``before add.commit``, or ``after thumbnail.rename 2`` for the second occurrence."""
        when, effect, *first = where.split()
        return cls(
            act=act, when=When(when), effect=effect, first=int(first[0]) if first else 1, times=times, seconds=seconds
        )

    @property
    def name(self) -> str:
        return f"{self.when} {self.effect}"

    def notice(self, folder: Path) -> Path:
        """Return the file that exists once the failpoint was reached."""
        return folder / f"reached {self.name}"

    def permission(self, folder: Path) -> Path:
        """Return the file that releases a held process."""
        return folder / f"go on {self.name}"

    def counts(self, occurrence: int) -> bool:
        return self.first <= occurrence < self.first + self.times


def encode(points: Iterable[Failpoint]) -> str:
    """Encode failpoints for an environment variable."""
    return json.dumps([asdict(point) for point in points])


def decode(text: str) -> list[Failpoint]:
    """Decode failpoints from an environment variable."""
    return [Failpoint(**{**each, "act": Action(each["act"]), "when": When(each["when"])}) for each in json.loads(text)]


class Failpoints:
    """The failpoints of this process. Effects happen in threads as well as in the event loop."""

    def __init__(self, points: Iterable[Failpoint], folder: Path) -> None:
        """Take the failpoints and the folder for notices and permissions."""
        self._points = tuple(points)
        self._folder = folder
        self._seen: Counter[tuple[str, When]] = Counter()
        self._lock = Lock()

    async def run(self, when: When, effect: str, outage: type[Exception]) -> None:
        """Run the actions for an effect in the event loop.

        Raises:
            Exception: the outage, for an action ``FAIL``.
        """
        for point in self._reached(when, effect):
            if point.act is Action.DELAY:
                await asyncio.sleep(point.seconds)
            elif point.act is Action.HOLD:
                while not point.permission(self._folder).exists():  # noqa: ASYNC110  (another process creates the file)
                    await asyncio.sleep(POLL)
            else:
                _perform(point, outage)

    def run_in_thread(self, when: When, effect: str, outage: type[Exception]) -> None:
        """Run the actions for an effect in a thread."""
        for point in self._reached(when, effect):
            if point.act is Action.DELAY:
                time.sleep(point.seconds)
            elif point.act is Action.HOLD:
                while not point.permission(self._folder).exists():
                    time.sleep(POLL)
            else:
                _perform(point, outage)

    def _reached(self, when: When, effect: str) -> Iterator[Failpoint]:
        with self._lock:
            self._seen[effect, when] += 1
            occurrence = self._seen[effect, when]
        for point in self._points:
            if (point.when, point.effect) == (when, effect) and point.counts(occurrence):
                point.notice(self._folder).touch()
                yield point


def _perform(point: Failpoint, outage: type[Exception]) -> None:
    match point.act:
        case Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Action.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            raise outage
