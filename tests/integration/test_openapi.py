"""Responses to generated requests conform to the OpenAPI description."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings

from harness.api import JPEG, Api, accepted, api_on, fail, finish, remove_original
from harness.outputs import RECIPES, finish_with
from harness.waiting import eventually

# Coverage doubles the time that it takes to generate the requests; the tests of the API cover the same code.
pytestmark = pytest.mark.no_cover


@dataclass(frozen=True)
class PopulatedApi:
    """An application with images in every state."""

    api: Api
    images: tuple[str, ...]
    webhooks: tuple[str, ...]


async def populate(api: Api) -> tuple[str, ...]:
    """Uploads six images: PROCESSING, DONE, ERROR, in reprocessing, without original, and one of a recipe, DONE."""
    ids = [await accepted(api, JPEG, key=f"image: {number}") for number in range(5)]
    _, done, failed, again, without_original = ids
    for image_id in (done, again, without_original):
        await finish(api, image_id)
    await fail(api, failed)
    assert (await api.client.post(f"/images/{again}/reprocess")).status_code == 202
    await remove_original(api, without_original)
    hero = await accepted(api, JPEG, recipe="hero")
    await finish_with(api, hero, pending=["extra"])
    return (*ids, hero)


async def register(api: Api) -> tuple[str, ...]:
    """Registers two webhook endpoints, the second of which is disabled, with a delivery to the first; returns ids."""
    ids = []
    for enabled in (True, False):
        webhook = (await api.client.post("/webhooks", json={"url": URL})).json()["id"]
        assert (await api.client.patch(f"/webhooks/{webhook}", json={"enabled": enabled})).status_code == 200
        ids.append(webhook)
    assert (await api.client.post(f"/webhooks/{ids[0]}/test")).status_code == 202
    async with api.database.transaction() as repositories:
        await repositories.deliveries.dispatch()
    return tuple(ids)


@pytest.fixture
def populated(sqlite_url: str, tmp_path: Path) -> Iterator[PopulatedApi]:
    with asyncio.Runner() as runner:
        context = api_on(
            sqlite_url, tmp_path, recipes=RECIPES, log_level="WARNING", upload_idle_timeout=1, max_wait=0.05
        )
        api = runner.run(context.__aenter__())
        yield PopulatedApi(api, runner.run(populate(api)), runner.run(register(api)))
        # It reads in the client's event loop, so it cannot be closed from here; without requests it ends by itself.
        feed = api.app.state.context.services.feed
        runner.run(eventually(lambda: feed._reader is None))
        runner.run(context.__aexit__(None, None, None))


URL: Final = "https://hooks.example.org/"
VALID: Final = ["POSITIVE"]
VALID_AND_INVALID: Final = ["POSITIVE", "NEGATIVE"]
OPERATIONS: Final = {
    "POST /images": (VALID_AND_INVALID, {202, 400, 415}),
    "GET /images": (VALID_AND_INVALID, {200, 422}),
    "GET /images/{image_id}": (VALID_AND_INVALID, {200, 404, 422}),
    "DELETE /images/{image_id}": (VALID_AND_INVALID, {204, 404, 422}),
    "POST /images/{image_id}/reprocess": (VALID_AND_INVALID, {202, 404, 409, 410, 422}),
    "GET /images/{image_id}/original": (VALID_AND_INVALID, {200, 404, 410, 422}),
    "GET /images/{image_id}/thumbnails/{size}": (VALID_AND_INVALID, {200, 404, 422}),
    "GET /events": (VALID_AND_INVALID, {200, 410, 422}),
    "GET /images/{image_id}/events": (VALID_AND_INVALID, {200, 404, 410, 422}),
    "POST /webhooks": (VALID_AND_INVALID, {201, 422}),
    "GET /webhooks": (VALID, {200}),
    "GET /webhooks/{webhook_id}": (VALID_AND_INVALID, {200, 404, 422}),
    "PATCH /webhooks/{webhook_id}": (VALID_AND_INVALID, {200, 404, 422}),
    "DELETE /webhooks/{webhook_id}": (VALID_AND_INVALID, {204, 404, 422}),
    "POST /webhooks/{webhook_id}/rotate": (VALID_AND_INVALID, {200, 404, 422}),
    "POST /webhooks/{webhook_id}/test": (VALID_AND_INVALID, {202, 404, 409, 422}),
    "GET /webhooks/{webhook_id}/deliveries": (VALID_AND_INVALID, {200, 404, 422}),
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/replay": (VALID_AND_INVALID, {202, 404, 409, 422}),
    "POST /webhooks/{webhook_id}/replay": (VALID_AND_INVALID, {202, 404, 409, 422}),
    "GET /recipes": (VALID, {200}),
    "GET /limits": (VALID, {200}),
    "GET /health": (VALID, {200}),
    "GET /health/ready": (VALID, {200}),
    "GET /health/live": (VALID, {200}),
}
"""Each operation, the kinds of requests to generate, and the statuses that must have occurred."""


def statuses_of(populated: PopulatedApi, name: str, known: Mapping[str, str | None], count: int) -> set[int]:
    """Check the responses to so many generated requests, in whose path known values replace others; return statuses."""
    from harness import generated  # noqa: PLC0415  (it takes a second, and every worker process imports this module)

    statuses = set()

    @given(case=generated.cases(populated.api.app, name, OPERATIONS[name][0]))
    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    def ask(case: generated.Case) -> None:
        for parameter in case.path_parameters:
            case.path_parameters[parameter] = known[parameter] or case.path_parameters[parameter]
        if isinstance(case.body, dict) and isinstance(case.body.get("url"), str):
            case.body["url"] = URL  # chance finds none that is allowed
        statuses.add(generated.ask(case))

    ask()
    return statuses


@pytest.mark.parametrize("name", OPERATIONS)
def test_responses_conform_to_the_openapi_description(populated: PopulatedApi, name: str) -> None:
    # Each image in turn: chance might leave out the only one that has an answer.
    images = [None, *populated.images] if "{image_id}" in name else [None]
    webhooks = [None, *populated.webhooks] if "{webhook_id}" in name else [None]
    deliveries = [None, "1"] if "{delivery_id}" in name else [None]
    sizes = [None, "300x300", "hero"] if "{size}" in name else [None]
    statuses = set[int]()
    chosen = list(product(images, webhooks, deliveries, sizes))
    for values in chosen:
        known = dict(zip(("image_id", "webhook_id", "delivery_id", "size"), values, strict=True))
        statuses |= statuses_of(populated, name, known, 60 // len(chosen))
    assert statuses >= OPERATIONS[name][1], "not every expected status occurred"


def test_every_operation_is_tested(populated: PopulatedApi) -> None:
    paths = populated.api.app.openapi()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(OPERATIONS)
