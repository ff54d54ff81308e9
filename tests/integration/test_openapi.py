"""The application keeps what its OpenAPI description promises, whatever it is asked."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from harness.api import JPEG, Api, accepted, api_on, fail, finish, remove_original

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@dataclass(frozen=True)
class Shop:
    """An application that has images of every kind."""

    api: Api
    images: tuple[str, ...]


async def stock(api: Api) -> tuple[str, ...]:
    """Upload images: one is PROCESSING, one DONE, one ERROR, one processed again, and one without its original."""
    ids = [await accepted(api, JPEG, key=f"in stock: {number}") for number in range(5)]
    _, done, failed, again, without_original = ids
    for image_id in (done, again, without_original):
        await finish(api, image_id)
    await fail(api, failed)
    assert (await api.client.post(f"/images/{again}/reprocess")).status_code == 202
    await remove_original(api, without_original)
    return tuple(ids)


@pytest.fixture
def shop(sqlite_url: str, tmp_path: Path) -> Iterator[Shop]:
    with asyncio.Runner() as runner:
        opening = api_on(sqlite_url, tmp_path, log_level="WARNING", upload_idle_timeout=1)
        api = runner.run(opening.__aenter__())
        yield Shop(api, runner.run(stock(api)))
        runner.run(opening.__aexit__(None, None, None))


RIGHT: Final = [GenerationMode.POSITIVE]
RIGHT_AND_WRONG: Final = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
OPERATIONS: Final = {
    "POST /images": (RIGHT_AND_WRONG, {202, 400, 415}),
    "GET /images": (RIGHT_AND_WRONG, {200, 422}),
    "GET /images/{image_id}": (RIGHT_AND_WRONG, {200, 404, 422}),
    "DELETE /images/{image_id}": (RIGHT_AND_WRONG, {204, 404, 422}),
    "POST /images/{image_id}/reprocess": (RIGHT_AND_WRONG, {202, 404, 409, 410, 422}),
    "GET /images/{image_id}/original": (RIGHT_AND_WRONG, {200, 404, 410, 422}),
    "GET /images/{image_id}/thumbnails/{size}": (RIGHT_AND_WRONG, {200, 404, 422}),
    "GET /health": (RIGHT, {200}),
    "GET /health/ready": (RIGHT, {200}),
    "GET /health/live": (RIGHT, {200}),
}
"""What can be asked, whether it can be asked wrongly, and the answers that it must have had in the end."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_as_described(shop: Shop, name: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", shop.api.app)
    method, path = name.split()
    modes, expected = OPERATIONS[name]
    cases = st.one_of([schema[path][method].as_strategy(generation_mode=mode) for mode in modes])
    statuses = set()

    @given(case=cases, image_id=st.sampled_from([None, *shop.images]), size=st.sampled_from([None, "300x300"]))
    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: "schemathesis.Case[Any]", image_id: str | None, size: str | None) -> None:
        known = {"image_id": image_id, "size": size}
        for parameter in case.path_parameters:
            case.path_parameters[parameter] = known[parameter] or case.path_parameters[parameter]
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    ask()
    assert statuses >= expected, "it was never asked for what there is"


def test_every_operation_is_asked(shop: Shop) -> None:
    paths = shop.api.app.openapi()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(OPERATIONS)
