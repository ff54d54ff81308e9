"""What attackers send to the running program over raw sockets must cost it little."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.service import PROGRAM, Service, Standalone
from harness.waiting import eventually
from tests.integration.test_http_server import CHUNKED, FORM, upload

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
MEMORY = 40_000_000
"""Bytes by which the process may grow; without bounds it grows by 30 to 700 million."""
FAST = {"DECODE_SLOTS": "1", "ALLOWED_HOSTS": "*"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("attacked"), FAST) as service:
        assert status_of(ask(service.url, LIVE)) == 200
        yield service
        assert "Traceback" not in service.log
        assert [entry for entry in entries(service) if entry["level"] in {"error", "critical"}] == []
        service.stop()


def entries(service: Service) -> list[dict[str, object]]:
    return [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]


def address_of(service: Service) -> str:
    return next(word for word in service.log.split() if word.startswith("http://"))


def connect(url: str, host: str = "127.0.0.1") -> socket.socket:
    port = urlsplit(url).port
    assert port is not None
    return socket.create_connection((host, port), timeout=30)


def ask(url: str, request: bytes, host: str = "127.0.0.1") -> bytes:
    """Sends one request and returns the beginning of the response; b"" if the connection is closed."""
    with connect(url, host) as client:
        client.sendall(request)
        return client.recv(65_536)


def status_of(reply: bytes) -> int:
    return int(reply.split()[1]) if reply else 0


def pushed(service: Standalone, beginning: bytes, unit: bytes, total: int) -> bytes:
    """Sends as much as the service takes, at most ``total`` bytes; returns the response."""
    with connect(service.url) as client:
        with suppress(ConnectionError):
            client.sendall(beginning)
            for _ in range(total // len(unit)):
                client.sendall(unit)
            pytest.fail("it was read to the end")
        with suppress(ConnectionError):
            return client.recv(65_536)
    return b""


@pytest.mark.parametrize(
    ("beginning", "unit", "status"),
    [
        pytest.param(LIVE[:-2], b"a:b\r\n" * 20_000, 431, id="header lines"),
        pytest.param(LIVE[:-2] + b"a: ", b"b" * 100_000, 431, id="header line"),
        pytest.param(b"GET /", b"a" * 100_000, 414, id="URL"),
        pytest.param(b"", b"\r\n" * 50_000, 431, id="blank lines"),
        pytest.param(CHUNKED + b"0\r\n", b"a:b\r\n" * 20_000, 431, id="trailers"),
        pytest.param(CHUNKED + b"1;", b"a" * 100_000, 431, id="chunk extension"),
    ],
)
def test_endless_head_is_refused_and_costs_nothing(
    service: Standalone, beginning: bytes, unit: bytes, status: int
) -> None:
    before, spent = service.process.memory_info().rss, sum(service.process.cpu_times()[:2])
    assert status_of(pushed(service, beginning, unit, 60_000_000)) in {status, 0}  # 0: a reset overtook the response
    assert service.process.memory_info().rss - before < MEMORY
    assert sum(service.process.cpu_times()[:2]) - spent < 1
    assert status_of(ask(service.url, upload(FORM))) == 202


async def test_pipelined_requests_with_unread_responses_are_not_kept(service: Standalone) -> None:
    before = service.process.memory_info().rss
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(service.url)) for _ in range(20)]
        requests = LIVE * (3_000_000 // len(LIVE))
        sent = dict.fromkeys(clients, 0)
        for client in clients:
            client.settimeout(0)

        def all_are_stuck() -> bool:
            """Sends what can be sent; whether nothing could."""
            progress = 0
            for client in clients:
                with suppress(BlockingIOError):
                    while sent[client] < len(requests):
                        taken = client.send(requests[sent[client] :])
                        sent[client] += taken
                        progress += taken
            return not progress

        await eventually(all_are_stuck, timeout=60, interval=0.5)
        assert status_of(ask(service.url, LIVE)) == 200
        assert service.process.memory_info().rss - before < MEMORY
    assert status_of(ask(service.url, upload(FORM))) == 202


def test_resets_leave_no_errors_in_the_log(service: Standalone) -> None:
    requests = [b"", b"GET /", LIVE, LIVE * 3, LIVE * 5000, b"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n" * 100]
    requests += [upload(FORM[:60], length=len(FORM)), upload(FORM) * 10]
    for request in requests * 5:
        with connect(service.url) as client:
            client.sendall(request)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it resets it
    assert status_of(ask(service.url, upload(FORM))) == 202  # the fixture looks at the log


async def test_log_lines_are_short_whatever_a_client_sends(service: Standalone) -> None:
    request = LIVE.replace(b"/health/live", b"/x" + b"y" * 5000)
    forwarded = b"X-Forwarded-For: " + b"z" * 8000 + b"\r\n\r\n"
    assert status_of(ask(service.url, request[:-2] + forwarded)) == 404
    await eventually(lambda: "/xyyy" in service.log)
    assert "zzz" in service.log
    assert max(map(len, service.log.splitlines())) < 2000


async def test_idle_connections_do_not_keep_uploads_out(tmp_path: Path) -> None:
    limited = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    command = (*limited, *PROGRAM, "standalone", "--port", "0", "--data", tmp_path / "data")
    with Service(tmp_path, *command, started="Upload an image", env=FAST) as service, ExitStack() as stack:
        url = address_of(service)
        for _ in range(300):
            stack.enter_context(connect(url))
        assert status_of(ask(url, upload(FORM))) == 202
        assert service.process.num_fds() < 200
        (shortage,) = service.lines("connection limit reached")
        assert shortage["limit"] == 96


async def test_all_addresses_of_both_families(tmp_path: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.fail("IPv6 is switched off: sysctl -w net.ipv6.conf.all.disable_ipv6=0", pytrace=False)
    command = (*PROGRAM, "standalone", "--host", "::", "--port", "0", "--data", tmp_path / "data")
    with Service(tmp_path, *command, started="Upload an image", env=FAST) as service:
        url = address_of(service)
        for host in ("127.0.0.1", "::1"):
            assert status_of(ask(url, LIVE.replace(b"/health/live", b"/images"), host)) == 200
        await eventually(lambda: len(service.lines("request")) == 2)
        assert [entry["client"] for entry in service.lines("request")] == ["127.0.0.1", "::1"]
        service.stop()
