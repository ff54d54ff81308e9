"""The application keeps what its OpenAPI description promises, whatever it is asked."""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

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

from image_service.domain.image import ImageError, Thumbnail
from tests.support.api import Api, api_on
from tests.support.fakes import FINDINGS
from tests.support.images import encoded, gradient

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CONTENT = encoded(gradient(60, 40), "JPEG")


@dataclass(frozen=True)
class Shop:
    """An application that has images of every kind."""

    api: Api
    images: tuple[str, ...]


async def stock(api: Api) -> tuple[str, ...]:
    """Upload three images: one is PROCESSING, one DONE and one ERROR."""
    answers = [await api.client.post("/images", files={"file": CONTENT}) for _ in range(3)]
    processing, done, failed = (UUID(answer.json()["id"]) for answer in answers)
    async with api.resources.storage.scratch() as scratch:
        (scratch / "thumbnail").write_bytes(CONTENT)
        await api.resources.storage.adopt({"thumbnails/00/x": scratch / "thumbnail"})
    thumbnail = Thumbnail(
        preset="300x300",
        key="thumbnails/00/x",
        content_type="image/jpeg",
        width=60,
        height=40,
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    async with api.database.transaction() as repositories:
        for image_id in (done, failed):
            claim = await repositories.images.claim(image_id, lease=60)
            assert claim is not None
            if image_id == done:
                await repositories.images.complete(
                    claim, width=60, height=40, thumbnails=[thumbnail], findings=FINDINGS
                )
            else:
                await repositories.images.fail(claim, ImageError(code="corrupt-image", detail="Export it again."))
    return str(processing), str(done), str(failed)


@pytest.fixture
def shop(sqlite_url: str, tmp_path: Path) -> Iterator[Shop]:
    with asyncio.Runner() as runner:
        opening = api_on(sqlite_url, tmp_path, log_level="WARNING", upload_idle_timeout=1)
        api = runner.run(opening.__aenter__())
        yield Shop(api, runner.run(stock(api)))
        runner.run(opening.__aexit__(None, None, None))


OPERATIONS = {
    "POST /images": [GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
    "GET /images/{image_id}": [GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
    "GET /images/{image_id}/original": [GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
    "GET /images/{image_id}/thumbnails/{size}": [GenerationMode.POSITIVE, GenerationMode.NEGATIVE],
    "GET /health": [GenerationMode.POSITIVE],
    "GET /health/ready": [GenerationMode.POSITIVE],
    "GET /health/live": [GenerationMode.POSITIVE],
}
"""What can be asked, and whether it can be asked wrongly."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_as_described(shop: Shop, name: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", shop.api.app)
    method, path = name.split()
    cases = st.one_of([schema[path][method].as_strategy(generation_mode=mode) for mode in OPERATIONS[name]])
    statuses = set()

    @given(case=cases, image_id=st.sampled_from([None, *shop.images]), size=st.sampled_from([None, "300x300"]))
    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: "schemathesis.Case[Any]", image_id: str | None, size: str | None) -> None:
        known = {"image_id": image_id, "size": size}
        for parameter in case.path_parameters:
            case.path_parameters[parameter] = known[parameter] or case.path_parameters[parameter]
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    ask()
    assert min(statuses) < 300, "it was never asked for what there is"
