"""Moments in a process's life at which something happens to it: just before or just after an effect of its own.

An effect has a name, ``add.commit`` or ``original.rename``; ``composed`` gives them theirs.
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
"""Times."""


class When(StrEnum):
    """On which side of the effect."""

    BEFORE = "before"
    AFTER = "after"


class Action(StrEnum):
    """What happens then."""

    KILL = "kill"
    """SIGKILL."""
    STOP = "stop"
    """SIGSTOP: the whole process stands still until it gets a SIGCONT."""
    HOLD = "hold"
    """Whoever is about to have the effect, or has had it, waits to be released; the rest of the process goes on."""
    FAIL = "fail"
    """What is needed is away: before the effect it does not take place, after it only the reply is lost."""
    DELAY = "delay"
    """It takes so many seconds longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failpoint:
    """Something that happens to a process at an effect."""

    act: Action
    when: When
    effect: str
    first: int = 1
    """The first of its occurrences that counts."""
    times: int = 1
    """How many of them count."""
    seconds: float = 0.0

    @classmethod
    def at(cls, where: str, act: Action, *, times: int = 1, seconds: float = 0.0) -> Self:
        """A point by words: ``before add.commit``, or ``after thumbnail.rename 2`` for the second time."""
        when, effect, *first = where.split()
        return cls(
            act=act, when=When(when), effect=effect, first=int(first[0]) if first else 1, times=times, seconds=seconds
        )

    @property
    def name(self) -> str:
        return f"{self.when} {self.effect}"

    def notice(self, folder: Path) -> Path:
        """The file that is there once the point was reached."""
        return folder / f"reached {self.name}"

    def permission(self, folder: Path) -> Path:
        """The file that releases whoever is held at the point."""
        return folder / f"go on {self.name}"

    def counts(self, occurrence: int) -> bool:
        return self.first <= occurrence < self.first + self.times


def encode(points: Iterable[Failpoint]) -> str:
    """The points as an environment variable's value."""
    return json.dumps([asdict(point) for point in points])


def decode(text: str) -> list[Failpoint]:
    """The points of such a value."""
    return [Failpoint(**{**each, "act": Action(each["act"]), "when": When(each["when"])}) for each in json.loads(text)]


class Failpoints:
    """What happens to this process, and when. Effects take place in threads as well as in the event loop."""

    def __init__(self, points: Iterable[Failpoint], folder: Path) -> None:
        """Make them; notices go to the folder."""
        self._points = tuple(points)
        self._folder = folder
        self._seen: Counter[tuple[str, When]] = Counter()
        self._lock = Lock()

    async def meet(self, when: When, effect: str, outage: type[Exception]) -> None:
        """Come by in the event loop.

        Raises:
            Exception: the outage, where a point says that something is away.
        """
        for point in self._reached(when, effect):
            if point.act is Action.DELAY:
                await asyncio.sleep(point.seconds)
            elif point.act is Action.HOLD:
                while not point.permission(self._folder).exists():  # noqa: ASYNC110  (another process makes it)
                    await asyncio.sleep(POLL)
            else:
                _happen(point, outage)

    def meet_in_thread(self, when: When, effect: str, outage: type[Exception]) -> None:
        """Come by in a thread; the same otherwise."""
        for point in self._reached(when, effect):
            if point.act is Action.DELAY:
                time.sleep(point.seconds)
            elif point.act is Action.HOLD:
                while not point.permission(self._folder).exists():
                    time.sleep(POLL)
            else:
                _happen(point, outage)

    def _reached(self, when: When, effect: str) -> Iterator[Failpoint]:
        with self._lock:
            self._seen[effect, when] += 1
            occurrence = self._seen[effect, when]
        for point in self._points:
            if (point.when, point.effect) == (when, effect) and point.counts(occurrence):
                point.notice(self._folder).touch()
                yield point


def _happen(point: Failpoint, outage: type[Exception]) -> None:
    match point.act:
        case Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Action.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            raise outage
