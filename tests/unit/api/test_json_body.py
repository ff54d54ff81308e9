"""Bodies of JSON are read within bounds of size and time."""

import json
from typing import Annotated

import pytest
from fastapi import Body as Given
from fastapi import FastAPI
from starlette.requests import Request

from harness.asgi import Answer, Body, call, scope
from harness.logs import logging_kept
from image_service.api.json_body import MAX_BODY, JsonRoute, read_json
from image_service.api.middleware import RequestContext
from image_service.api.problems import install_handlers
from image_service.api.routing import Router
from image_service.errors import BodyTimeout


def application() -> FastAPI:
    app = FastAPI()
    router = Router(route_class=JsonRoute)

    @router.post("/text")
    async def text(text: Annotated[str, Given(embed=True)]) -> int:
        return len(text)

    @router.post("/none")
    async def none() -> str:
        return "none"

    app.include_router(router)
    install_handlers(app)
    app.add_middleware(RequestContext)
    return app


async def post(body: Body | bytes, path: str = "/text", **headers: str) -> Answer:
    given = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    with logging_kept():
        return await call(application(), scope("POST", path, given), body if isinstance(body, Body) else Body([body]))


def body_of(size: int) -> bytes:
    return b'{"text": "%b"}' % (b"x" * (size - len('{"text": ""}')))


def code_of(answer: Answer) -> tuple[int | None, str]:
    return answer.status, json.loads(b"".join(answer.chunks))["code"]


async def test_largest_body_is_read_however_it_arrives() -> None:
    body = body_of(MAX_BODY)
    for pieces in ([body], [body[:1], b"", body[1:]], [bytes([byte]) for byte in body]):
        answer = await post(Body(pieces))
        assert (answer.status, b"".join(answer.chunks)) == (200, b"%d" % (MAX_BODY - len('{"text": ""}')))


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_content_type_may_have_parameters(kind: str) -> None:
    assert (await post(body_of(100), content_type=kind)).status == 200


async def test_larger_body_is_refused_after_as_many_bytes() -> None:
    body = Body([b"x" * 1024] * 1000)
    assert code_of(await post(body)) == (413, "body-too-large")
    assert body.received == MAX_BODY // 1024 + 1


async def test_larger_body_is_refused_unread_if_it_says_so() -> None:
    body = Body([], then="silence")
    assert code_of(await post(body, content_length=str(MAX_BODY + 1))) == (413, "body-too-large")
    assert body.received == 0


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data; boundary=x", "application/jsonp", "text/json"]
)
async def test_other_content_types_are_refused_unread(kind: str) -> None:
    body = Body([], then="silence")
    assert code_of(await post(body, content_type=kind)) == (415, "not-json")
    assert body.received == 0


async def test_compressed_body_is_refused() -> None:
    assert code_of(await post(body_of(100), content_encoding="gzip")) == (415, "unsupported-encoding")


@pytest.mark.parametrize("pieces", [[], [body_of(100)[:50]]])
async def test_slow_body_is_refused(pieces: list[bytes]) -> None:
    request = Request(scope("POST", headers={"content-type": "application/json"}), Body(pieces, then="silence"))
    with pytest.raises(BodyTimeout):
        await read_json(request, seconds=0.01)


async def test_closed_connection_is_a_malformed_request() -> None:
    assert code_of(await post(Body([b"{"], then="disconnect"))) == (400, "malformed-request")


BROKEN = [b"", b"{", b"\xff", b'{"text": "\xff"}', b"[" * MAX_BODY, b"null", b"1" * 10_000, b'{"text": NaN}', b"{}"]


@pytest.mark.parametrize("body", BROKEN)
async def test_what_is_no_valid_json_is_refused_in_few_words(body: bytes) -> None:
    answer = await post(body)
    assert code_of(answer) == (422, "invalid-request")
    assert len(b"".join(answer.chunks)) < 500


async def test_operation_without_a_body_reads_none() -> None:
    body = Body([], then="silence")
    assert (await post(body, "/none", content_type="text/plain")).status == 200
    assert body.received == 0
