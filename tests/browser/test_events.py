"""A browser's own client of event streams: it resumes by itself where the stream ended."""

import asyncio
from pathlib import Path

from harness.api import accepted, finish
from harness.chromium import Chromium
from harness.counted import counted
from harness.waiting import eventually
from tests.integration.test_http_server import serving

FOLLOW = """async (path) => {
  const source = new EventSource(path);
  const seen = [];
  let opened = 0;
  source.addEventListener("open", () => opened++);
  await new Promise((done) => {
    for (const type of ["image.accepted", "image.done"])
      source.addEventListener(type, (event) => {
        seen.push([event.type, event.lastEventId, JSON.parse(event.data).data.status]);
        if (type === "image.done") done();
        else fetch("/limits");
      });
  });
  source.close();
  return {seen, opened};
}"""

SEEN = {"method": "GET", "route": "/limits", "status": "200"}
"""The request by which the page says that it has seen the first event."""


async def test_event_source_resumes_after_the_server_ended_the_stream(
    chromium: Chromium, sqlite_url: str, tmp_path: Path
) -> None:
    async with serving(sqlite_url, tmp_path) as server:
        metrics = server.api.resources.metrics
        assert metrics is not None
        places = server.api.app.state.context.stream_places
        image_id = await accepted(server.api)
        page, path = f"http://127.0.0.1:{server.port}/health/live", f"/images/{image_id}/events"
        following = asyncio.create_task(asyncio.to_thread(chromium.call, page, FOLLOW, path))
        (open_stream,) = await eventually(lambda: tuple(places._open), timeout=60)
        await eventually(lambda: counted(metrics, "http_request_duration_seconds_count", **SEEN), timeout=60)
        open_stream.end()
        await eventually(lambda: open_stream not in places._open)
        await finish(server.api, image_id)
        found = await following
        listed = (await server.api.client.get(path)).json()["events"]
    assert found["seen"] == [[event["type"], event["id"], event["data"]["status"]] for event in listed]
    assert [kind for kind, _, _ in found["seen"]] == ["image.accepted", "image.done"]
    assert found["opened"] == 2
