"""Fakes of what the use cases depend on: they record calls, and fail as the script says."""

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import event

from image_service.database import Database, Repositories, SingleStatements
from image_service.domain.image import (
    ImageFormat,
    ImageHeader,
    ImageTraits,
    MetadataKind,
    RenderedThumbnail,
    Rendering,
)
from image_service.domain.lane import Lane
from image_service.domain.recipe import Output, OutputFormat, Recipe
from image_service.errors import CorruptImage, ObjectMissing, UnsupportedFormat
from image_service.ports import Delivery, ObjectAttributes
from image_service.queue.embedded import EmbeddedQueue
from image_service.storage.local import LocalStorage

LONG_TIMEOUT = 60.0

IMAGE = b"IMAGE"
"""The first bytes of a file that ``FakeInspector`` accepts."""
DAMAGED = b"IMAGE damaged"
HEADER = ImageHeader(format=ImageFormat.PNG, width=640, height=480)
TRAITS = ImageTraits(
    placeholder="k0oGLQaSVsN0BVhn2oq2Z5SQUQcZ",
    dominant_colour="#8b5a2b",
    metadata_removed=(MetadataKind.EXIF, MetadataKind.GPS),
)

Failure: TypeAlias = Exception | type[Exception]
Queries = TypeVar("Queries", bound=SingleStatements)


class Script:
    """Records the calls of the fakes in order, and makes calls fail or run a hook first.

    Calls have the names of the methods: ``adopt`` of a storage, ``publish`` of a queue, ``add`` of a repository. Those
    of the removals are named ``removals.add`` and so on.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.tried: Counter[str] = Counter()
        self._failures: dict[str, Iterator[Failure]] = {}
        self._lost_replies: dict[str, Iterator[Failure]] = {}
        self._hooks: dict[str, Callable[..., Awaitable[object]]] = {}

    def fail(self, name: str, failures: Iterable[Failure]) -> None:
        """Make the next calls fail before they have any effect, one for each failure."""
        self._failures[name] = iter(failures)

    def lose_replies(self, name: str, failures: Iterable[Failure]) -> None:
        """Make the next calls fail after they took effect, one for each failure."""
        self._lost_replies[name] = iter(failures)

    def before(self, name: str, hook: Callable[..., Awaitable[object]]) -> None:
        """Run a hook before each call takes effect; it gets the call's positional arguments."""
        self._hooks[name] = hook

    async def begin(self, name: str, *args: object) -> None:
        self.tried[name] += 1
        if hook := self._hooks.get(name):
            await hook(*args)
        for failure in self._failures.get(name, ()):
            raise failure

    def end(self, name: str) -> None:
        self.done.append(name)
        for failure in self._lost_replies.get(name, ()):
            raise failure

    @asynccontextmanager
    async def effect(self, name: str, *args: object) -> AsyncIterator[None]:
        await self.begin(name, *args)
        yield
        self.end(name)


class ScriptedDatabase(Database):
    """A real database. A query takes effect with its COMMIT, so a lost reply is a reply to COMMIT."""

    def __init__(self, url: str, script: Script) -> None:
        super().__init__(url, time_limit=LONG_TIMEOUT)
        self._script = script

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Repositories]:
        async with self._scripted(super().transaction()) as repositories:
            yield repositories

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[SingleStatements]:
        inner = super().statement()
        # On a database that cannot commit at once, ``statement`` calls ``transaction``, which is scripted already.
        async with (
            self._scripted(_single_statement(inner), one=True) if self.commits_at_once else inner as repositories
        ):
            yield repositories

    @asynccontextmanager
    async def _scripted(
        self, inner: AbstractAsyncContextManager[Queries], *, one: bool = False
    ) -> AsyncIterator[Queries]:
        asked: list[str] = []
        async with inner as repositories:
            for name in ("images", "claims", "outputs", "scheduling", "catalogue", "removals"):
                prefix = "removals." if name == "removals" else ""
                scripted = _ScriptedRepository(getattr(repositories, name), self._script, asked, prefix)
                setattr(repositories, name, scripted)
            yield repositories
        assert not one or len(asked) <= 1, f"{asked}: a second query would be in a transaction of its own"
        for name in asked:
            self._script.end(name)


@asynccontextmanager
async def _single_statement(inner: AbstractAsyncContextManager[SingleStatements]) -> AsyncIterator[SingleStatements]:
    """Allow a block one statement only, because a second one would not be in the same transaction.

    On SQLite a query may be several, which are one transaction.
    """
    made: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        assert not made, f"{statement!r} after {made[0]!r}"
        made.append(statement)

    async with inner as repositories:
        if repositories.connection.dialect.name == "postgresql":
            event.listen(repositories.connection.sync_connection, "before_cursor_execute", count)
        yield repositories


class _ScriptedRepository:
    def __init__(self, repository: object, script: Script, asked: list[str], prefix: str) -> None:
        self._repository = repository
        self._script = script
        self._asked = asked
        self._prefix = prefix

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def ask(*args: Any, **options: Any) -> object:  # noqa: ANN401  (arguments of any query)
            await self._script.begin(self._prefix + name, *args)
            self._asked.append(self._prefix + name)
            answer: object = await getattr(self._repository, name)(*args, **options)
            return answer

        return ask


class ScriptedStorage(LocalStorage):
    """A real directory."""

    def __init__(self, root: Path, script: Script) -> None:
        super().__init__(root)
        self._script = script

    async def adopt(self, files: Mapping[str, Path], attributes: Mapping[str, ObjectAttributes] | None = None) -> None:
        async with self._script.effect("adopt", files):
            await super().adopt(files, attributes)

    async def local_path(self, key: str, scratch: Path, sha256: str) -> Path:
        async with self._script.effect("local_path", key):
            return await super().local_path(key, scratch, sha256)

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        async with self._script.effect("read", key):
            async for piece in super().read(key, start, length):
                yield piece

    async def probe(self) -> None:
        async with self._script.effect("storage.probe"):
            await super().probe()

    async def delete(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        async with self._script.effect("delete", keys):
            await super().delete(keys)


class ScriptedQueue(EmbeddedQueue):
    """A real queue without a consumer."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script
        self.published: list[Delivery] = []

    async def publish(self, delivery: Delivery) -> None:
        async with self._script.effect("publish", delivery):
            await super().publish(delivery)
            self.published.append(delivery)

    async def depth(self) -> Mapping[Lane, int]:
        async with self._script.effect("depth"):
            return await super().depth()

    def lose_everything(self) -> None:
        """Drop all waiting messages, as a broker does that lost its disk."""
        self._waiting = {lane: asyncio.Queue() for lane in Lane}


class FakeInspector:
    """Accepts files that begin with ``IMAGE``."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    def sniff(self, head: bytes) -> ImageFormat:
        self.heads.append(head)
        if not head.startswith(IMAGE):
            raise UnsupportedFormat
        return HEADER.format

    def inspect(self, path: Path) -> ImageHeader:
        content = path.read_bytes()
        self.sniff(content[:4096])
        if content.startswith(DAMAGED):
            raise CorruptImage
        return HEADER


class FakeRenderer:
    """Writes a few bytes for each output, once ``gate`` is set."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self.rendered = 0
        self.made: list[str] = []
        """The names of all outputs that it was asked for."""
        self.left_out: set[str] = set()
        """The names of outputs to leave out."""
        self.cancelled = 0

    async def render(self, source: Path, recipe: Recipe, out: Path) -> Rendering:
        async with self._script.effect("render", source):
            try:
                content = source.read_bytes()  # noqa: ASYNC240  (a few bytes)
            except FileNotFoundError:
                raise ObjectMissing from None
            self.running += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.running -= 1
            self.rendered += 1
            self.made += [each.name for each in recipe.outputs]
            left_out = tuple(each.name for each in recipe.outputs if each.name in self.left_out)
            thumbnails = tuple(_thumbnail(each, content, out) for each in recipe.outputs if each.name not in left_out)
            return Rendering(width=480, height=640, thumbnails=thumbnails, traits=TRAITS, left_out=left_out)


def _thumbnail(output: Output, content: bytes, out: Path) -> RenderedThumbnail:
    made = b"%s of %s, unique: %s" % (output.name.encode(), content[:20], os.urandom(16))
    if output.default:  # no other format is larger
        made += b"." * 100
    path = out / output.name
    path.write_bytes(made)
    kind = OutputFormat.JPEG if output.format is OutputFormat.AUTO else output.format
    return RenderedThumbnail(
        output=output.name,
        path=path,
        content_type=f"image/{kind}",
        width=75 * output.dpr,
        height=100 * output.dpr,
        size_bytes=len(made),
        sha256=hashlib.sha256(made).hexdigest(),
    )
