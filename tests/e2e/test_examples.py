"""The programs in ``examples``, which receive events from the running service."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from harness.images import encoded, gradient
from harness.plain_http import NO_TLS
from harness.processes import SOURCE, free_port
from harness.servers import program
from harness.service import FAST_SETTINGS, Api, Service, Worker, client, done
from harness.waiting import eventually
from harness.webhook_verifiers import javascript_library
from image_service.domain.webhook_signature import new_secret, signature_headers

EXAMPLES = SOURCE.parent / "examples"
PHOTO = encoded(gradient(64, 48), "JPEG")
RECEIVERS = ("webhook_receiver.py", "webhook_receiver.mjs")


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def example(folder: Path, name: str, started: str, **env: str) -> Service:
    if name.endswith(".py"):
        return Service(
            folder / name,
            sys.executable,
            EXAMPLES / name,
            started=started,
            env={**env, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    copied = folder / "javascript" / name
    copied.parent.mkdir()
    copied.write_bytes((EXAMPLES / name).read_bytes())
    copied.with_name("node_modules").symlink_to(javascript_library())
    return Service(folder / name, program("node"), copied, started=started, env=env)


def receiver(folder: Path, name: str, port: int, secret: str) -> Service:
    return example(folder, name, "listening on", WEBHOOK_SECRET=secret, PORT=str(port))


async def test_examples_receive_the_events_of_an_upload(
    running: ExitStack, tmp_path: Path, postgres_database_url: str, rabbitmq_virtual_host: str
) -> None:
    exchange = f"examples-{uuid4().hex}"
    broker = {"RABBITMQ_URL": rabbitmq_virtual_host, "EVENTS_EXCHANGE": exchange}
    env = (
        broker
        | FAST_SETTINGS
        | {
            "DATABASE_URL": postgres_database_url,
            "STORAGE_PATH": str(tmp_path / "storage"),
            "OUTBOUND_ALLOW": "127.0.0.0/8",
        }
    )
    consumer = example(tmp_path, "event_consumer.py", "waiting for events", QUEUE=exchange, **broker)
    running.enter_context(consumer)
    api = running.enter_context(Api(tmp_path, env))
    running.enter_context(Worker(tmp_path, env))
    receivers = []
    async with client(api.url) as http:
        for name in RECEIVERS:
            port = free_port()
            answer = await http.post("/webhooks", json={"url": f"http://127.0.0.1:{port}/", "types": ["image.done"]})
            assert answer.status_code == 201, answer.text
            receivers.append(running.enter_context(receiver(tmp_path, name, port, answer.json()["secret"])))
        answer = await http.post("/images", files={"file": PHOTO}, params={"metadata": "order-7"})
        image_id = answer.json()["id"]
        await done(http, image_id)
    acted = f"image.done {image_id} DONE order-7"
    await eventually(lambda: all(acted in each.log for each in receivers), timeout=60)
    await eventually(lambda: f"image.done {image_id} DONE" in consumer.log, timeout=60)


@pytest.mark.parametrize("name", RECEIVERS)
def test_receivers_act_once_on_what_is_signed_and_on_nothing_else(
    running: ExitStack, tmp_path: Path, name: str
) -> None:
    secret, port = new_secret("v1"), free_port()
    listening = running.enter_context(receiver(tmp_path, name, port, secret))
    body = b'{"type":"image.done","timestamp":"2026-11-28T12:00:00Z","data":{"id":"7","status":"DONE"}}'
    headers = signature_headers([new_secret("v1"), secret], event_id="evt_1", sent_at=int(time.time()), body=body)

    def answer(content: bytes, **changed: str) -> int:
        url = f"http://127.0.0.1:{port}"
        return httpx.post(
            url, content=content, headers={**headers, **changed}, trust_env=False, verify=NO_TLS
        ).status_code

    assert [answer(body), answer(body)] == [204, 204]
    assert answer(body + b" ") == 401
    assert answer(body, **{"webhook-signature": "v1"}) == 401
    assert answer(body, **{"webhook-id": ""}) == 401
    assert answer(b" " * 1_000_001) == 413
    assert listening.log.count("image.done 7 DONE") == 1
