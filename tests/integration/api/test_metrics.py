"""Request metrics: their counts, and labels that clients cannot choose."""

import pytest

from harness.api import PNG, UNKNOWN, Api, accepted, finish, upload
from harness.counted import counted, series
from image_service.observability.metrics import Metrics

COUNT = "http_request_duration_seconds_count"


def metrics_of(api: Api) -> Metrics:
    assert api.resources.metrics is not None
    return api.resources.metrics


async def test_request_is_counted_under_its_route(sqlite_api: Api) -> None:
    metrics = metrics_of(sqlite_api)
    image_id = await accepted(sqlite_api)
    thumbnails = await finish(sqlite_api, image_id)
    await sqlite_api.client.get(f"/images/{image_id}")
    await sqlite_api.client.get(f"/images/{image_id}/thumbnails/100x100")
    assert counted(metrics, COUNT, method="POST", route="/images", status="202") == 1
    assert counted(metrics, COUNT, method="GET", route="/images/{image_id}", status="200") == 1
    route = "/images/{image_id}/thumbnails/{size}"
    assert counted(metrics, COUNT, method="GET", route=route, status="200") == 1
    assert counted(metrics, "http_sent_bytes_total", route=route) == len(thumbnails["100x100"])
    assert (counted(metrics, "http_received_bytes_total", route="/images") or 0) > len(PNG)
    assert counted(metrics, "http_requests_in_progress") == 0
    assert counted(metrics, "uploads_total", queued="true") == 1
    assert counted(metrics, "upload_size_bytes_sum", format="png") == len(PNG)


async def test_refused_upload_is_counted_under_its_code(sqlite_api: Api) -> None:
    metrics = metrics_of(sqlite_api)
    await upload(sqlite_api, b"no image")
    assert counted(metrics, COUNT, method="POST", route="/images", status="415") == 1
    assert counted(metrics, "http_problems_total", route="/images", code="unsupported-format") == 1
    assert counted(metrics, "uploads_total", queued="true") == 0


@pytest.mark.parametrize("method", ["GET", "BREW", "PROPFIND"])
async def test_arbitrary_methods_and_paths_create_no_series(sqlite_api: Api, method: str) -> None:
    metrics = metrics_of(sqlite_api)
    for number in range(3):
        await sqlite_api.client.request(method, f"/made/up/{number}")
        await sqlite_api.client.request(method, f"/images/{UNKNOWN}{number}")
    seen = series(metrics)["image_service_" + COUNT]
    assert {dict(labels)["method"] for labels in seen} == {"GET" if method == "GET" else "other"}
    assert {dict(labels)["route"] for labels in seen} <= {"other", "/images/{image_id}"}
    assert len(seen) <= 2
