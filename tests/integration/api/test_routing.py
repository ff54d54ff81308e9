"""Unknown paths, trailing slashes and other methods."""

import pytest

from harness.api import PNG, UNKNOWN, Api, problem


@pytest.mark.parametrize("path", ["/image", "/images/x/y", "/admin", "/docs-assets/nothing.js", "/docs-assets/../x"])
async def test_unknown_path_returns_404(small_api: Api, path: str) -> None:
    problem(await small_api.client.get(path), 404, "not-found")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/images/", f"/images/{UNKNOWN}/", "/health/", "/docs/", "/images//"])
async def test_trailing_slash_returns_404_with_an_explanation(small_api: Api, method: str, path: str) -> None:
    """There is no redirect: it would need the public host name, and an upload would lose its body."""
    answer = await small_api.client.request(method, path)
    document = problem(answer, 404, "not-found")
    assert document["detail"] == f"There is nothing at {path}. Leave the slash at its end out. The API is at /docs."
    assert "location" not in answer.headers


async def test_upload_with_a_trailing_slash_is_refused(small_api: Api) -> None:
    answer = await small_api.client.post("/images/", files={"file": PNG})
    assert "Leave the slash at its end out." in problem(answer, 404, "not-found")["detail"]
    assert not small_api.originals


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/images", "GET, HEAD, POST"),
        ("PATCH", f"/images/{UNKNOWN}", "GET, HEAD, DELETE"),
        ("GET", f"/images/{UNKNOWN}/reprocess", "POST"),
        ("DELETE", f"/images/{UNKNOWN}/original", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/docs", "GET, HEAD"),
    ],
)
async def test_other_method_returns_405_with_allow(small_api: Api, method: str, path: str, allowed: str) -> None:
    answer = await small_api.client.request(method, path)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed
