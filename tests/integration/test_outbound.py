"""What is sent to receivers, and what hostile ones can do: only end the attempt. All of them are real servers."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET, gaierror
from threading import Event
from typing import Final

import httpcore2
import pytest

from harness.certificates import Authority
from harness.processes import free_port
from harness.waiting import eventually, wait_for
from image_service.outbound.addresses import Address, AddressPolicy, Reach
from image_service.outbound.client import GuardedClient
from image_service.outbound.connections import GuardedBackend
from image_service.outbound.resolver import Resolver
from image_service.ports import Answer, OutboundFailed

LOOPBACK: Final = AddressPolicy([ip_network("127.0.0.0/8")])
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LONG: Final = 60.0
"""A limit that no test reaches."""

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """A server that answers as a test wants, once it has read a request."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: int = 0
    """Connections that the client has ended."""

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/hook?a=1"


@asynccontextmanager
async def receiving(respond: Respond | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run a receiver. ``respond`` is what to send after each request, or what to do once a connection is open."""
    receiver = Receiver(port=0)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.connections += 1
        try:
            if callable(respond):
                await respond(reader, writer)
            else:
                while True:
                    receiver.requests.append(await read_request(reader))
                    writer.write(respond)
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            receiver.ended += 1
            writer.transport.abort()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(start, "127.0.0.1", 0, ssl=tls) as server:
        receiver.port = server.sockets[0].getsockname()[1]
        yield receiver
    for task in serving:
        task.cancel()
    await asyncio.wait(serving or {asyncio.create_task(asyncio.sleep(0))})


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(length.partition(b":")[2]))


def is_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    return reader.at_eof() or writer.is_closing()


def endless(piece: bytes, head: bytes = b"") -> Respond:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        while not is_over(reader, writer):
            writer.write(piece)
            await writer.drain()

    return respond


def trickle(content: bytes, pause: float = 0.02) -> Respond:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in content:
            if is_over(reader, writer):
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(pause)

    return respond


async def silent(*_: object) -> None:
    pass


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    connection = writer.get_extra_info("socket")
    connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.close()


class Names:
    """Resolves every name: to the next of these answers, and the last one from then on."""

    def __init__(self, *answers: str) -> None:
        self.answers = [[ip_address(each) for each in answer.split()] for answer in answers]
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def post(client: GuardedClient, url: str, limit: float = LONG, body: bytes = b"{}") -> Answer:
    return await wait_for(client.post(url, headers={"Content-Type": "application/json"}, body=body, timeout=limit))


async def failure(client: GuardedClient, url: str, limit: float = LONG, body: bytes = b"{}") -> str:
    with pytest.raises(OutboundFailed) as caught:
        await post(client, url, limit, body)
    assert caught.value.reason == str(caught.value)
    return caught.value.reason


def server_tls(authority: Authority, name: str, folder: Path) -> ssl.SSLContext:
    authority.server(name).write_to(folder, None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def client() -> AsyncIterator[GuardedClient]:
    async with GuardedClient(LOOPBACK, resolve=Names("127.0.0.1"), body_timeout=0.3) as made:
        yield made


def trusting(authority: Authority, names: Names) -> GuardedClient:
    data = authority.server("any").authority.decode()
    return GuardedClient(LOOPBACK, resolve=names, tls=lambda: ssl.create_default_context(cadata=data))


async def test_a_request_is_what_was_asked_for_and_uses_no_proxy(
    client: GuardedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with receiving(OK) as receiver:
        assert await post(client, receiver.url("receiver")) == Answer(status=200, headers={}, body=b"ok")
    (request,) = receiver.requests
    assert request.split(b"\r\n") == [
        b"POST /hook?a=1 HTTP/1.1",
        b"Host: receiver:%d" % receiver.port,
        b"User-Agent: image-processing-service/0.1.0",
        b"Accept-Encoding: identity",
        b"Content-Length: 2",
        b"Content-Type: application/json",
        b"",
        b"{}",
    ]


async def test_connections_are_used_again_but_not_after_an_answer_that_was_cut(client: GuardedClient) -> None:
    async with receiving(OK) as receiver:
        for _ in range(3):
            await post(client, receiver.url())
        assert receiver.connections == 1
    async with receiving(b"HTTP/1.1 500 no\r\nContent-Length: 10240\r\n\r\n" + b"x" * 10240) as receiver:
        for _ in range(2):
            assert await post(client, receiver.url()) == Answer(status=500, headers={}, body=b"x" * 1024)
        assert receiver.connections == 2
        await eventually(lambda: receiver.ended == 2)


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025])
async def test_the_first_kilobyte_of_a_body_is_kept(client: GuardedClient, length: int) -> None:
    async with receiving(b"HTTP/1.1 410 Gone\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length) as receiver:
        assert await post(client, receiver.url()) == Answer(status=410, headers={}, body=b"x" * min(length, 1024))


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (b"Retry-After: 120", {"retry-after": "120"}),
        (b"RETRY-AFTER: Fri, 04 Dec 2026 00:00:00 GMT", {"retry-after": "Fri, 04 Dec 2026 00:00:00 GMT"}),
        (b"Retry-After: \xff", {"retry-after": "ÿ"}),
        (b"Retry-After: " + b"1" * 65, {}),
        (b"Set-Cookie: a=b", {}),
    ],
)
async def test_only_retry_after_is_kept_and_no_cookie_is_sent_back(
    client: GuardedClient, header: bytes, kept: dict[str, str]
) -> None:
    async with receiving(b"HTTP/1.1 429 slow\r\n" + header + b"\r\nContent-Length: 0\r\n\r\n") as receiver:
        assert (await post(client, receiver.url())).headers == kept
        await post(client, receiver.url())
    assert not any(b"cookie" in request.lower() for request in receiver.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(client: GuardedClient, status: int) -> None:
    async with receiving(OK) as private:
        redirect = f"HTTP/1.1 {status} moved\r\nLocation: {private.url()}\r\nContent-Length: 0\r\n\r\n".encode()
        async with receiving(redirect) as receiver:
            assert (await post(client, receiver.url())).status == status
        assert private.connections == 0


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (reset, "connection-closed"),
        (hang_up, "connection-closed"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "malformed-answer"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "malformed-answer"),
        (endless(b"x" * 4096), "answer-too-large"),
        (endless(b"X-Filler: " + b"x" * 4096 + b"\r\n", head=b"HTTP/1.1 200 OK\r\n"), "answer-too-large"),
        (endless(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100), "answer-too-large"),
    ],
)
async def test_an_answer_that_is_none_ends_the_attempt(
    client: GuardedClient, respond: Respond | bytes, reason: str
) -> None:
    async with receiving(respond) as receiver:
        assert await failure(client, receiver.url()) == reason
        await eventually(lambda: receiver.ended == receiver.connections == 1)


@pytest.mark.parametrize(
    ("respond", "scheme"),
    [
        (silent, "http"),
        (silent, "https"),
        (trickle(b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 1000), "http"),
        (trickle(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100), "http"),
    ],
)
async def test_what_hangs_or_trickles_ends_at_the_time_out_and_its_connection_with_it(
    client: GuardedClient, respond: Respond, scheme: str
) -> None:
    async with receiving(respond) as receiver:
        assert await failure(client, receiver.url(scheme=scheme), limit=0.2) == "timed-out"
        await eventually(lambda: receiver.ended == receiver.connections)


async def test_a_receiver_that_does_not_read_ends_at_the_time_out(client: GuardedClient) -> None:
    async def respond(*_: object) -> None:
        await asyncio.Event().wait()

    async with receiving(respond) as receiver:
        assert await failure(client, receiver.url(), limit=0.2, body=b"x" * 32 * 1024**2) == "timed-out"


@pytest.mark.parametrize(
    "respond",
    [
        trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000, pause=0.002),
        endless(b"x" * 4096, head=b"HTTP/1.1 200 OK\r\n\r\n"),
        endless(b"1000\r\n" + b"x" * 4096 + b"\r\n", head=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        endless(b"1\r\nx\r\n" * 100, head=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n;no chunk\r\n",
    ],
)
async def test_a_body_that_does_not_end_changes_nothing_about_the_status(
    client: GuardedClient, respond: Respond | bytes
) -> None:
    async with receiving(respond) as receiver:
        answer = await post(client, receiver.url())
        await eventually(lambda: receiver.ended == receiver.connections == 1)
    assert answer.status == 200
    assert answer.body == b"x" * len(answer.body)
    assert len(answer.body) <= 1024


async def test_compressed_bodies_stay_so(client: GuardedClient) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    async with receiving(head + b"\x1f\x8b\x08\x00") as receiver:
        assert (await post(client, receiver.url())).body == b"\x1f\x8b\x08\x00"


async def test_tls_checks_the_name_and_tells_it_to_the_server(authority: Authority, tmp_path: Path) -> None:
    names: list[str] = []
    tls = server_tls(authority, "hooks.example.org", tmp_path)
    tls.sni_callback = lambda _, name, __: names.append(name)
    async with (
        receiving(OK, tls) as receiver,
        trusting(authority, Names("127.0.0.1")) as client,
        GuardedClient(LOOPBACK, resolve=Names("127.0.0.1")) as untrusting,
    ):
        assert (await post(client, receiver.url("hooks.example.org", "https"))).status == 200
        assert await failure(client, receiver.url("other.example.org", "https")) == "certificate-invalid"
        assert await failure(untrusting, receiver.url("hooks.example.org", "https")) == "certificate-invalid"
        assert await failure(client, receiver.url("127.0.0.1", "https")) == "certificate-invalid"
    assert names == ["hooks.example.org", "other.example.org", "hooks.example.org", None]
    assert len(receiver.requests) == 1


async def test_a_server_without_tls_has_a_reason_of_its_own(client: GuardedClient) -> None:
    async def answer_anything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with receiving(answer_anything) as receiver:
        assert await failure(client, receiver.url(scheme="https")) == "tls-failed"


async def test_where_nothing_listens_and_which_address_is_tried(client: GuardedClient) -> None:
    assert await failure(client, f"http://127.0.0.1:{free_port()}/") == "connect-failed"
    async with receiving(OK) as receiver, GuardedClient(LOOPBACK, resolve=Names("127.0.0.2 127.0.0.1")) as second:
        assert (await post(second, receiver.url("receiver"))).status == 200


async def test_a_name_that_resolves_to_another_address_the_next_time_is_checked_again(authority: Authority) -> None:
    names = Names("127.0.0.1", "127.0.0.1 10.0.0.1", "169.254.169.254", "::1", "127.0.0.1")
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with receiving(closing) as receiver, trusting(authority, names) as client:
        url = receiver.url("hooks.example.org")
        assert (await post(client, url)).status == 200
        for _ in range(3):
            assert await failure(client, url) == "address-not-allowed"
        assert (await post(client, url)).status == 200
        assert receiver.connections == 2
    assert names.asked == ["hooks.example.org"] * 5


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://127.1/", "https://me@127.0.0.1/", "http://[::1]/"])
async def test_urls_are_checked_at_every_request(client: GuardedClient, url: str) -> None:
    assert await failure(client, url) == "url-not-allowed"


class Dialled(httpcore2.AsyncNetworkBackend):
    """Notes addresses instead of dialling them."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 — the interface's
        local_address: str | None = None,
        socket_options: Iterable[object] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        _ = port, timeout, local_address, socket_options
        self.addresses.append(host)
        raise httpcore2.ConnectError


PUBLIC = "93.184.215.14 2606:2800:21f:cb07:6820:80da:af6b:8b2c"


@pytest.mark.parametrize(
    ("answer", "needs", "dialled"),
    [
        (PUBLIC, Reach.PUBLIC, PUBLIC),
        (PUBLIC, Reach.ALLOWED, ""),
        (PUBLIC + " 127.0.0.1", Reach.PUBLIC, PUBLIC + " 127.0.0.1"),
        (PUBLIC + " 127.0.0.1", Reach.ALLOWED, ""),
        (PUBLIC + " 10.0.0.1", Reach.PUBLIC, ""),
        ("::1 " + PUBLIC, Reach.PUBLIC, ""),
        ("fe80::1%1", Reach.PUBLIC, ""),
        ("127.0.0.1 10.0.0.1", Reach.ALLOWED, ""),
        ("127.0.0.1", Reach.ALLOWED, "127.0.0.1"),
        ("127.0.0.1 127.0.0.2 127.0.0.3 127.0.0.4 127.0.0.5", Reach.ALLOWED, "127.0.0.1 127.0.0.2 127.0.0.3 127.0.0.4"),
    ],
)
async def test_one_address_that_is_not_allowed_refuses_a_name(answer: str, needs: Reach, dialled: str) -> None:
    tcp = Dialled()
    backend = GuardedBackend(policy=LOOPBACK, resolve=Names(answer), needs=needs, tcp=tcp)
    reason = "connect-failed" if dialled else "address-not-allowed"
    with pytest.raises(OutboundFailed, match=reason):
        await backend.connect_tcp("hooks.example.org", 443)
    assert " ".join(tcp.addresses) == dialled


async def test_names_are_resolved_as_the_system_does() -> None:
    assert ip_address("127.0.0.1") in await wait_for(Resolver()("localhost"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (gaierror(-2, "Name or service not known"), "name-not-found"),
        (gaierror(-5, "No address associated with hostname"), "name-not-found"),
        (gaierror(-3, "Temporary failure in name resolution"), "name-lookup-failed"),
        (UnicodeError("label too long"), "name-lookup-failed"),
    ],
)
async def test_names_that_do_not_resolve(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("socket.getaddrinfo", fail)
    async with GuardedClient(AddressPolicy()) as client:
        assert await failure(client, "https://hooks.example.org/") == reason


async def test_look_ups_that_hang_end_at_the_time_out_and_are_bounded() -> None:
    release, started = Event(), []

    def look_up(host: str) -> Sequence[Address]:
        started.append(host)
        release.wait()
        return [ip_address("10.0.0.1")]

    async with GuardedClient(AddressPolicy(), resolve=Resolver(look_up=look_up, limit=2)) as client:
        tried = [failure(client, f"https://{number}.example.org/", limit=0.2) for number in range(4)]
        assert await asyncio.gather(*tried) == ["timed-out"] * 4
        assert len(started) == 2
        release.set()
        assert await failure(client, "https://hooks.example.org/") == "address-not-allowed"
