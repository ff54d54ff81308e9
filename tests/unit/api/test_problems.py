"""Every error is documented and becomes a problem document (RFC 9457) with its status."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from structlog.testing import capture_logs

from harness.asgi import Answer, Body, call, scope
from harness.logs import logging_kept
from image_service import errors
from image_service.api.middleware import RequestContext
from image_service.api.problems import STATUS, documented, install_handlers, problem_response
from image_service.errors import ServiceError
from image_service.observability.logging import configure_logging

NEVER_A_RESPONSE = {
    "queue-unavailable",  # the image stays NEW
    "decoder-crashed",
    "decoder-timeout",
    "decoder-memory",
    "attempts-exhausted",
    "object-unreadable",  # these five appear in an image's `error`
    "folder-in-use",
    "start-failed",  # these two end the process
    "foreign-storage",  # the sweeper's log
}
GROUPS = {errors.UploadRejected, errors.InvalidImage, errors.Busy, errors.Outage, errors.DecoderFailure}
"""Base classes: they are not raised by the API and have no code."""
ADVICE = re.compile(
    r"[.;:] (documentation is at|(ask|check|export|look|report|scale|send|stop|try|upload|wait)\b)"
    r"|The API's documentation is at /docs\.$",
    re.IGNORECASE,
)


def kinds(root: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from kinds(kind)


KINDS = list(kinds())
RAISED = [kind for kind in KINDS if kind not in GROUPS]


def application(*raised: Exception) -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    install_handlers(app)
    app.add_middleware(RequestContext)

    @app.get("/number/{number}")
    async def number(number: int) -> None:
        raise raised[number]

    @app.get("/begun")
    async def begun() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            raise raised[0]

        return StreamingResponse(pieces())

    @app.post("/begun")
    async def begin() -> None:
        raise raised[0]

    return app


async def get(path: str, *raised: Exception, method: str = "GET") -> Answer:
    return await call(application(*raised), scope(method, path))


def problem(answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]
    assert answer.status == document["status"]
    assert document["type"] == f"urn:image-service:problem:{document['code']}"
    assert set(document) == {"type", "title", "status", "detail", "code"}
    return document


def test_every_error_has_a_status_or_is_never_a_response() -> None:
    assert {kind.code for kind in RAISED} == set(STATUS) | NEVER_A_RESPONSE
    assert not set(STATUS) & NEVER_A_RESPONSE


@pytest.mark.parametrize("kind", [kind for kind in RAISED if kind.code in STATUS])
def test_server_errors_are_5xx_and_client_errors_4xx(kind: type[ServiceError]) -> None:
    server_errors = (
        errors.Outage,
        errors.ObjectMissing,
        errors.ObjectChanged,
        errors.BacklogFull,
        errors.TooManyConnections,
    )
    server_error = kind is ServiceError or issubclass(kind, server_errors)
    assert STATUS[kind.code] // 100 == (5 if server_error else 4)


def test_codes_are_unique_and_in_kebab_case() -> None:
    codes = [kind.code for kind in RAISED]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)
    assert all("code" not in vars(group) for group in GROUPS)


@pytest.mark.parametrize("kind", RAISED)
def test_every_error_says_what_is_wrong_and_what_to_do(kind: type[ServiceError]) -> None:
    assert kind.__doc__
    sentence = kind().detail
    assert sentence == kind.__doc__.strip()
    assert "\n" not in sentence
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert ADVICE.search(sentence), sentence


def test_given_detail_replaces_the_class_sentence() -> None:
    error = errors.CorruptImage("The image ends in its header.")
    assert error.detail == str(error) == "The image ends in its header."


def test_documented_error_tree_matches_the_classes() -> None:
    assert errors.__doc__
    drawn = re.findall(r"^    ((?:[│├└─ ]{4})*)(\w+) *(.*)$", errors.__doc__.split("::", 1)[1], re.MULTILINE)
    drawn = [(len(branch) // 4, name, remark) for branch, name, remark in drawn]
    parents: dict[int, str] = {}
    edges = set()
    for depth, name, _ in drawn:
        edges.add((name, parents.get(depth - 1)))
        parents[depth] = name
    assert edges == {
        (kind.__name__, kind.__base__.__name__ if kind is not ServiceError and kind.__base__ else None)
        for kind in KINDS
    }
    remarks = {name: remark for _, name, remark in drawn}
    assert all(re.match(rf"{kind.code}(;|$)", remarks[kind.__name__]) for kind in RAISED), remarks


@pytest.mark.parametrize("code", STATUS)
async def test_error_becomes_a_problem_with_its_status(code: str) -> None:
    kind = next(kind for kind in RAISED if kind.code == code)
    answer = await get("/number/0", kind("Exactly this. Do that."))
    assert problem(answer) == {
        "type": f"urn:image-service:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": STATUS[code].value,
        "detail": "Exactly this. Do that." if STATUS[code] < HTTPStatus.INTERNAL_SERVER_ERROR else kind().detail,
        "code": code,
    }


OUTAGES = [kind for kind in RAISED if issubclass(kind, errors.Outage) and kind.code in STATUS]


@pytest.mark.parametrize("kind", OUTAGES)
async def test_detail_of_an_outage_is_logged_and_hidden_from_the_client(kind: type[ServiceError]) -> None:
    with capture_logs() as log:
        document = problem(await get("/number/0", kind("Run `image-service migrate`.")))
    assert document["detail"] == kind.__doc__
    assert [line for line in log if line["event"] != "request"] == [
        {
            "event": "request failed: dependency unavailable",
            "log_level": "warning",
            "code": kind.code,
            "detail": "Run `image-service migrate`.",
        }
    ]


@pytest.mark.parametrize(
    ("kind", "event", "level"),
    [
        (errors.CorruptImage, "request refused", "info"),
        (errors.TooManyUploads, "request refused", "info"),
        (errors.BacklogFull, "request refused", "info"),
        (errors.ObjectMissing, "request failed", "error"),
        (ServiceError, "request failed", "error"),
    ],
)
async def test_error_is_logged_at_the_level_of_its_severity(kind: type[ServiceError], event: str, level: str) -> None:
    with capture_logs() as log:
        await get("/number/0", kind())
    assert [(line["event"], line["log_level"], line["code"]) for line in log if line["event"] != "request"] == [
        (event, level, kind.code)
    ]


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (errors.TooManyUploads, "2"),
        (errors.BacklogFull, "5"),
        (errors.DatabaseUnavailable, "5"),
        (errors.StorageUnavailable, "5"),
        (errors.StorageFull, "60"),
        (errors.CorruptImage, None),
        (errors.ObjectMissing, None),
    ],
)
async def test_temporary_errors_have_retry_after(kind: type[ServiceError], seconds: str | None) -> None:
    assert (await get("/number/0", kind())).headers.get("retry-after") == seconds


@pytest.mark.parametrize("code", sorted(NEVER_A_RESPONSE))
async def test_unmapped_error_is_an_internal_error(code: str) -> None:
    kind = next(kind for kind in RAISED if kind.code == code)
    with capture_logs() as log:
        document = problem(await get("/number/0", kind("secret")))
    assert document["code"] == "internal-error"
    assert "secret" not in document["detail"]
    (line,) = [line for line in log if line["event"] != "request"]
    assert (line["event"], line["log_level"], line["code"]) == ("unmapped error reached the API", "error", code)
    assert line["exc_info"].detail == "secret"


def test_additional_headers_apply_to_one_response() -> None:
    answer = problem_response(errors.RangeNotSatisfiable(), {"Content-Range": "bytes */10"})
    assert answer.headers["content-range"] == "bytes */10"
    assert "content-range" not in problem_response(errors.RangeNotSatisfiable()).headers


@pytest.mark.parametrize("path", ["/nothing", "/", "/späť", "/a?b#c", "//evil.example"])
async def test_unknown_path_returns_404(path: str) -> None:
    document = problem(await get(path))
    assert document["code"] == "not-found"
    assert document["detail"] == f"There is nothing at {path}. The API is at /docs."


@pytest.mark.parametrize("path", ["/number/", "/nothing/", "/begun/"])
async def test_trailing_slash_is_explained(path: str) -> None:
    document = problem(await get(path))
    assert document["code"] == "not-found"
    assert document["detail"] == f"There is nothing at {path}. Leave the slash at its end out. The API is at /docs."


async def test_unknown_path_with_an_undecodable_query_returns_404() -> None:
    answer = await call(application(), scope(path="/nothing", query_string=b"\xff"))
    assert problem(answer)["code"] == "not-found"


async def test_other_method_returns_405_with_allow() -> None:
    answer = await get("/begun", method="DELETE")
    document = problem(answer)
    assert document["code"] == "method-not-allowed"
    assert document["detail"] == "DELETE is not allowed at /begun. The API is at /docs."
    assert answer.headers["allow"] == "GET, POST"


async def test_invalid_parameter_returns_422() -> None:
    document = problem(await get("/number/many"))
    assert document["code"] == "invalid-request"
    assert document["detail"].startswith("The request is not valid: number: Input should be a valid integer")


async def test_unexpected_exception_is_logged_with_traceback_and_hidden_from_the_client(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logging_kept():
        configure_logging("INFO", "json")
        answer = await get("/number/0", ZeroDivisionError("a secret"))
    document = problem(answer)
    assert answer.status == 500
    assert document["code"] == "internal-error"
    assert "secret" not in str(document)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("request failed", "error"), ("request", "info")]
    assert lines[0]["request_id"] == lines[1]["request_id"] == answer.headers["x-request-id"]
    assert lines[1]["status"] == 500
    (exception,) = lines[0]["exception"]
    assert exception["exc_type"] == "ZeroDivisionError"
    assert exception["exc_value"] == "a secret"
    assert exception["frames"][-1]["name"] == "number"


@pytest.mark.parametrize("error", [ZeroDivisionError("late"), errors.StorageUnavailable("late")])
async def test_exception_during_the_response_reaches_the_server(error: Exception) -> None:
    answer = Answer()
    with capture_logs() as log, pytest.raises(Exception) as raised:  # noqa: PT011  (whatever leads back to the error)
        await application(error)(scope(path="/begun"), Body([], then="silence"), answer.send)
    assert error in (raised.value, raised.value.__cause__)
    assert answer.status == 200
    assert answer.body == b"first"
    assert [line["event"] for line in log] == ["request failed", "request"]


def test_documented_errors_are_grouped_by_status_with_examples() -> None:
    described = documented(errors.EmptyUpload, errors.MissingFile, errors.CorruptImage)
    assert set(described) == {400, 422}
    assert described[400]["description"] == "Bad Request: `empty-upload`, `missing-file`"
    content = described[400]["content"]["application/problem+json"]
    assert set(content["examples"]) == {"empty-upload", "missing-file"}
    assert content["examples"]["missing-file"]["value"] == {
        "type": "urn:image-service:problem:missing-file",
        "title": "Missing file",
        "status": 400,
        "detail": errors.MissingFile().detail,
        "code": "missing-file",
    }
    assert set(content["schema"]["properties"]) == set(content["examples"]["missing-file"]["value"])
