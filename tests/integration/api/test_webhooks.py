"""Webhook endpoints: registered, shown, changed, rotated, tested and deleted; their deliveries."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from harness.api import PNG, UNKNOWN, Api, accepted, api_on, finish, problem
from harness.rows import in_transaction, recorded_events
from image_service.domain.event import EventType
from image_service.domain.webhook import MAX_WEBHOOKS
from image_service.domain.webhook_delivery import DeliveryAttempt, DeliveryResult, DeliveryStatus
from image_service.domain.webhook_signature import public_key

URL = "https://hooks.example.org/images?key=k"


async def register(api: Api, **fields: object) -> dict[str, Any]:
    answer = await api.client.post("/webhooks", json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    webhook: dict[str, Any] = answer.json()
    return webhook


async def shown(api: Api, webhook: dict[str, Any]) -> dict[str, Any]:
    answer = await api.client.get(f"/webhooks/{webhook['id']}")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    document: dict[str, Any] = answer.json()
    return document


async def change(api: Api, webhook: dict[str, Any], **fields: object) -> dict[str, Any]:
    answer = await api.client.patch(f"/webhooks/{webhook['id']}", json=fields)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == await shown(api, webhook)
    changed: dict[str, Any] = answer.json()
    return changed


async def dispatch(api: Api) -> None:
    """Create the deliveries of all events, as a worker does; on PostgreSQL, other transactions can delay them."""
    last = (await recorded_events(api.database))[-1].position
    async with asyncio.timeout(60):
        while await in_transaction(api.database, lambda r: r.events.position("webhooks")) != last:
            await in_transaction(api.database, lambda r: r.deliveries.dispatch())
            await asyncio.sleep(0.01)


async def fail_all(api: Api) -> None:
    """End all deliveries that are due: the endpoint answers 500."""
    attempt = DeliveryAttempt(milliseconds=7, status=500, answer="x")
    result = DeliveryResult(status=DeliveryStatus.FAILED)
    claimed = await in_transaction(api.database, lambda r: r.deliveries.claim({}, each=100, lease=60))
    for claim in claimed:
        await in_transaction(api.database, lambda r, claim=claim: r.deliveries.finish(claim, attempt, result))  # type: ignore[misc]


async def deliveries(api: Api, webhook: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    answer = await api.client.get(f"/webhooks/{webhook['id']}/deliveries{query}")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    found: list[dict[str, Any]] = answer.json()["deliveries"]
    return found


async def test_registered_endpoint_is_shown_with_its_secret_once(api: Api) -> None:
    answer = await api.client.post("/webhooks", json={"url": URL, "types": ["image.failed", "image.done"]})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    webhook = answer.json()
    assert answer.headers["location"] == f"/webhooks/{webhook['id']}"
    assert webhook.pop("secret").startswith("whsec_")
    assert webhook == {
        "id": str(UUID(webhook["id"])),
        "url": URL,
        "types": ["image.done", "image.failed"],
        "enabled": True,
        "disabled_reason": None,
        "disabled_at": None,
        "failing_since": None,
        "public_key": None,
        "previous_secret_until": None,
        "created_at": webhook["created_at"],
        "updated_at": webhook["created_at"],
    }
    assert await shown(api, webhook) == webhook
    listed = await api.client.get("/webhooks")
    assert (listed.json(), listed.headers["cache-control"]) == ({"webhooks": [webhook]}, "no-store")


async def test_rotation_shows_the_new_secret_and_until_when_the_old_one_is_used(api: Api) -> None:
    webhook = await register(api)
    answer = await api.client.post(f"/webhooks/{webhook['id']}/rotate")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    rotated = answer.json()
    recorded = await in_transaction(api.database, lambda r: r.webhooks.get(UUID(webhook["id"])))
    assert recorded is not None
    assert recorded.secrets == (rotated.pop("secret"), webhook["secret"])
    assert rotated == await shown(api, webhook)
    assert rotated["previous_secret_until"] > rotated["updated_at"]


async def test_ed25519_endpoint_shows_its_public_key_and_no_secret(sqlite_url: str, tmp_path: Path) -> None:
    async with api_on(sqlite_url, tmp_path, webhook_signatures="v1a") as api:
        webhook = await register(api)
        recorded = await in_transaction(api.database, lambda r: r.webhooks.get(UUID(webhook["id"])))
        assert recorded is not None
        assert webhook.pop("secret") is None
        assert webhook["public_key"] == public_key(recorded.secret)
        assert await shown(api, webhook) == webhook


async def test_secrets_are_in_no_log_and_no_error(sqlite_api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    webhook = await register(sqlite_api)
    rotated = (await sqlite_api.client.post(f"/webhooks/{webhook['id']}/rotate")).json()
    await change(sqlite_api, webhook, enabled=False)
    recorded = await in_transaction(sqlite_api.database, lambda r: r.webhooks.get(UUID(webhook["id"])))
    answers = [
        await sqlite_api.client.post(f"/webhooks/{webhook['id']}/test"),
        await sqlite_api.client.patch(f"/webhooks/{webhook['id']}", json={"secret": webhook["secret"]}),
    ]
    text = f"{capsys.readouterr()} {recorded!r} {[answer.text for answer in answers]}"
    assert "webhook endpoint registered" in text
    assert not any(each["secret"].partition("_")[2] in text for each in (webhook, rotated))


async def test_only_the_given_fields_are_changed(api: Api) -> None:
    webhook = await register(api, types=["image.done"])
    assert (await change(api, webhook))["types"] == ["image.done"]
    other = "https://other.example.org/"
    assert (await change(api, webhook, url=other))["types"] == ["image.done"]
    changed = await change(api, webhook, types=["image.failed"], enabled=False)
    assert (changed["url"], changed["types"], changed["enabled"]) == (other, ["image.failed"], False)
    assert changed["disabled_reason"] == "It was disabled by a request."
    changed = await change(api, webhook, types=None, enabled=True, url=None)
    assert (changed["url"], changed["types"], changed["enabled"], changed["disabled_at"]) == (other, None, True, None)


async def test_number_of_endpoints_is_limited(sqlite_api: Api) -> None:
    for _ in range(MAX_WEBHOOKS):
        webhook = await register(sqlite_api)
    document = problem(await sqlite_api.client.post("/webhooks", json={"url": URL}), 409, "too-many-webhooks")
    assert f" {MAX_WEBHOOKS} " in document["detail"]
    assert (await sqlite_api.client.delete(f"/webhooks/{webhook['id']}")).status_code == 204
    await register(sqlite_api)


async def test_deleted_endpoint_is_gone(api: Api) -> None:
    webhook, other = await register(api), await register(api)
    assert (await api.client.delete(f"/webhooks/{webhook['id']}")).status_code == 204
    problem(await api.client.delete(f"/webhooks/{webhook['id']}"), 404, "webhook-not-found")
    assert [each["id"] for each in (await api.client.get("/webhooks")).json()["webhooks"]] == [other["id"]]


async def test_test_is_delivered_as_other_events_are(api: Api) -> None:
    webhook, other = await register(api, types=["image.done"]), await register(api)
    answer = await api.client.post(f"/webhooks/{webhook['id']}/test")
    assert answer.status_code == 202, answer.text
    [event] = await recorded_events(api.database)
    await dispatch(api)
    found = (await api.client.get(answer.headers["location"])).json()["deliveries"]
    assert [(each["type"], each["event_id"], each["status"]) for each in found] == [
        ("webhook.test", event.id, "pending")
    ]
    assert event.facts["url"] == URL
    assert await deliveries(api, other) == []


async def test_disabled_endpoint_is_sent_no_test_and_no_replay(sqlite_api: Api) -> None:
    webhook = await register(sqlite_api)
    path = f"/webhooks/{webhook['id']}"
    await change(sqlite_api, webhook, enabled=False)
    problem(await sqlite_api.client.post(f"{path}/test"), 409, "webhook-disabled")
    problem(await sqlite_api.client.post(f"{path}/deliveries/1/replay"), 409, "webhook-disabled")
    since = {"since": "2026-01-01T00:00:00Z"}
    problem(await sqlite_api.client.post(f"{path}/replay", json=since), 409, "webhook-disabled")
    assert await recorded_events(sqlite_api.database) == []


async def test_deliveries_are_listed_and_made_again(api: Api) -> None:
    webhook = await register(api, types=["image.accepted", "image.done"])
    image_id = await accepted(api)
    await finish(api, image_id)
    await dispatch(api)
    await fail_all(api)
    found = await deliveries(api, webhook)
    assert [(each["type"], each["image_id"], each["status"], each["due_at"]) for each in found] == [
        ("image.done", image_id, "failed", None),
        ("image.accepted", image_id, "failed", None),
    ]
    [attempt] = found[0]["attempts"]
    assert attempt["made_at"] >= found[0]["created_at"]
    assert attempt == {"made_at": attempt["made_at"], "milliseconds": 7, "status": 500, "error": None, "answer": "x"}

    first = await api.client.get(f"/webhooks/{webhook['id']}/deliveries?limit=1")
    assert first.json()["deliveries"] == found[:1]
    second = await api.client.get(first.json()["next"])
    assert second.json() == {"deliveries": found[1:], "next": None}

    again = await api.client.post(f"/webhooks/{webhook['id']}/deliveries/{found[0]['id']}/replay")
    assert (again.status_code, again.json()) == (202, {"deliveries": 1})
    assert [each["status"] for each in await deliveries(api, webhook)] == ["pending", "failed"]
    everything = await api.client.post(f"/webhooks/{webhook['id']}/replay", json={"since": webhook["created_at"]})
    assert (everything.status_code, everything.json()) == (202, {"deliveries": 2})
    assert {each["status"] for each in await deliveries(api, webhook)} == {"pending"}


async def test_delivery_of_another_endpoint_is_not_found(api: Api) -> None:
    webhook, other = await register(api), await register(api)
    await accepted(api)
    await dispatch(api)
    [delivery] = await deliveries(api, webhook)
    path = f"/webhooks/{other['id']}/deliveries/{delivery['id']}/replay"
    problem(await api.client.post(path), 404, "delivery-not-found")


async def test_upload_for_one_endpoint_is_delivered_to_it_only(api: Api) -> None:
    webhook, other = await register(api), await register(api)
    query = {"webhook": webhook["id"]}
    answer = await api.client.post("/images", files={"file": ("a.png", PNG)}, params=query)
    assert answer.status_code == 202, answer.text
    await dispatch(api)
    assert [len(await deliveries(api, each)) for each in (webhook, other)] == [1, 0]


Ask = Callable[[httpx.AsyncClient], Any]
UNKNOWN_ENDPOINT: dict[str, Ask] = {
    "GET": lambda client: client.get(f"/webhooks/{UNKNOWN}"),
    "PATCH": lambda client: client.patch(f"/webhooks/{UNKNOWN}", json={"enabled": True}),
    "DELETE": lambda client: client.delete(f"/webhooks/{UNKNOWN}"),
    "rotate": lambda client: client.post(f"/webhooks/{UNKNOWN}/rotate"),
    "test": lambda client: client.post(f"/webhooks/{UNKNOWN}/test"),
    "deliveries": lambda client: client.get(f"/webhooks/{UNKNOWN}/deliveries"),
    "replay": lambda client: client.post(f"/webhooks/{UNKNOWN}/replay", json={"since": "2026-01-01T00:00:00Z"}),
    "replay of one": lambda client: client.post(f"/webhooks/{UNKNOWN}/deliveries/1/replay"),
}


@pytest.mark.parametrize("ask", UNKNOWN_ENDPOINT)
async def test_unknown_endpoint_is_not_found(sqlite_api: Api, ask: str) -> None:
    problem(await UNKNOWN_ENDPOINT[ask](sqlite_api.client), 404, "webhook-not-found")


REFUSED = {
    "private address": ({"url": "https://10.0.0.1/"}, "url-not-allowed"),
    "other scheme": ({"url": "ftp://example.org/"}, "url-not-allowed"),
    "NUL": ({"url": "https://example.org/\0"}, "url-not-allowed"),
    "no URL": ({"types": None}, "invalid-request"),
    "number": ({"url": 5}, "invalid-request"),
    "empty": ({"url": ""}, "invalid-request"),
    "too long": ({"url": "https://example.org/" + "x" * 2048}, "invalid-request"),
    "half a surrogate pair": ({"url": "https://example.org/\ud800"}, "invalid-request"),
    "unknown type": ({"url": URL, "types": ["image.lost"]}, "invalid-request"),
    "no type": ({"url": URL, "types": []}, "invalid-request"),
    "many types": ({"url": URL, "types": ["image.done"] * 33}, "invalid-request"),
    "no list": ({"url": URL, "types": "image.done"}, "invalid-request"),
    "unknown field": ({"url": URL, "colour\n": "red", "x" * 5000: 1}, "invalid-request"),
    "many unknown fields": ({"url": URL, **{f"field {number}": 1 for number in range(500)}}, "invalid-request"),
    "no object": ([URL], "invalid-request"),
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_other_endpoints_are_refused(sqlite_api: Api, refused: str) -> None:
    body, code = REFUSED[refused]
    answer = await sqlite_api.client.post(
        "/webhooks", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    detail = problem(answer, 422, code)["detail"]
    assert len(detail) < 600
    assert detail.isprintable()
    assert (await sqlite_api.client.get("/webhooks")).json() == {"webhooks": []}


async def test_what_is_wrong_is_named(sqlite_api: Api) -> None:
    answer = await sqlite_api.client.post("/webhooks", json={"types": ["image.done", "x"], "colour": 1})
    detail = problem(answer, 422, "invalid-request")["detail"]
    assert "url: Field required" in detail
    assert "types.1: Input should be 'image.accepted'" in detail
    assert "colour: there is no such field" in detail


@pytest.mark.parametrize("body", [{"url": "http://localhost/"}, {"enabled": 1}, {"enabled": "yes"}, {"id": UNKNOWN}])
async def test_other_changes_are_refused_and_change_nothing(sqlite_api: Api, body: dict[str, object]) -> None:
    webhook = await register(sqlite_api)
    before = await shown(sqlite_api, webhook)
    answer = await sqlite_api.client.patch(f"/webhooks/{webhook['id']}", json=body)
    problem(answer, 422, "url-not-allowed" if "url" in body else "invalid-request")
    assert await shown(sqlite_api, webhook) == before


@pytest.mark.parametrize(
    "since", ["2026-11-28", "2026-11-28T12:00:00", "1764331200", 1764331200, "2026-13-01T00:00:00Z"]
)
async def test_replay_needs_a_time_with_its_zone(sqlite_api: Api, since: object) -> None:
    webhook = await register(sqlite_api)
    answer = await sqlite_api.client.post(f"/webhooks/{webhook['id']}/replay", json={"since": since})
    wrong = problem(answer, 422, "invalid-request")["detail"]
    assert wrong.startswith("The request is not valid: since: ")


@pytest.fixture
async def lenient_api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with api_on(sqlite_url, tmp_path, outbound_allow="127.0.0.0/8") as api:
        yield api


async def test_networks_of_the_setting_are_allowed(lenient_api: Api) -> None:
    await register(lenient_api, url="http://127.0.0.1:9000/hook")
    problem(await lenient_api.client.post("/webhooks", json={"url": "http://10.0.0.1/"}), 422, "url-not-allowed")


async def test_pages_of_other_sites_cannot_register_one(sqlite_api: Api) -> None:
    for kind in ("application/json", "text/plain"):
        answer = await sqlite_api.client.post(
            "/webhooks",
            content=json.dumps({"url": URL}),
            headers={"Content-Type": kind, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        )
        problem(answer, 403, "origin-not-allowed")


async def test_all_types_of_events_can_be_chosen(sqlite_api: Api) -> None:
    types = [each.value for each in EventType]
    assert (await register(sqlite_api, types=[*reversed(types), types[0]]))["types"] == types
