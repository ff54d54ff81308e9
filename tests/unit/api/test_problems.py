"""Every error of the service is documented, and becomes a problem document (RFC 9457) with the status it deserves."""

import json
import re
from collections.abc import AsyncIterator, Iterator
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

NEVER_AN_ANSWER = {
    "queue-unavailable",  # the image waits as NEW
    "decoder-crashed",
    "decoder-timeout",
    "decoder-memory",
    "attempts-exhausted",  # these four are found in an image's `error`
    "folder-in-use",
    "start-failed",  # these two end the process
    "foreign-storage",  # the sweeper's log
}
GROUPS = {errors.UploadRejected, errors.InvalidImage, errors.Busy, errors.Outage, errors.DecoderFailure}
"""Never raised themselves: they have no code of their own."""
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


def test_every_error_has_a_status_or_is_known_never_to_be_an_answer() -> None:
    assert {kind.code for kind in RAISED} == set(STATUS) | NEVER_AN_ANSWER
    assert not set(STATUS) & NEVER_AN_ANSWER


@pytest.mark.parametrize("kind", [kind for kind in RAISED if kind.code in STATUS])
def test_the_status_tells_whose_turn_it_is(kind: type[ServiceError]) -> None:
    ours = kind is ServiceError or issubclass(kind, (errors.Outage, errors.ObjectMissing, errors.BacklogFull))
    assert STATUS[kind.code] // 100 == (5 if ours else 4)


def test_codes_are_unique_and_stay_in_kebab_case() -> None:
    codes = [kind.code for kind in RAISED]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)
    assert all("code" not in vars(group) for group in GROUPS)


@pytest.mark.parametrize("kind", RAISED)
def test_every_error_says_what_is_wrong_and_then_what_to_do(kind: type[ServiceError]) -> None:
    assert kind.__doc__
    sentence = kind().detail
    assert sentence == kind.__doc__.strip()
    assert "\n" not in sentence
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert ADVICE.search(sentence), sentence


def test_a_more_exact_detail_takes_the_place_of_the_general_one() -> None:
    error = errors.CorruptImage("The image ends in its header.")
    assert error.detail == str(error) == "The image ends in its header."


def test_the_tree_in_the_documentation_is_the_tree_in_the_code() -> None:
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
async def test_an_error_becomes_a_problem_with_its_status(code: str) -> None:
    kind = next(kind for kind in RAISED if kind.code == code)
    answer = await get("/number/0", kind("Exactly this. Do that."))
    assert problem(answer) == {
        "type": f"urn:image-service:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": STATUS[code].value,
        "detail": "Exactly this. Do that.",
        "code": code,
    }


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
async def test_what_passes_says_when_to_try_again(kind: type[ServiceError], seconds: str | None) -> None:
    assert (await get("/number/0", kind())).headers.get("retry-after") == seconds


@pytest.mark.parametrize("code", sorted(NEVER_AN_ANSWER))
async def test_an_error_that_is_never_an_answer_is_our_own_fault(code: str) -> None:
    kind = next(kind for kind in RAISED if kind.code == code)
    with capture_logs() as log:
        document = problem(await get("/number/0", kind("secret")))
    assert document["code"] == "internal-error"
    assert "secret" not in document["detail"]
    (line,) = [line for line in log if line["log_level"] == "error"]
    assert line["code"] == code
    assert line["exc_info"].detail == "secret"


def test_a_problem_may_carry_headers_that_stay_its_own() -> None:
    answer = problem_response(errors.RangeNotSatisfiable(), {"Content-Range": "bytes */10"})
    assert answer.headers["content-range"] == "bytes */10"
    assert "content-range" not in problem_response(errors.RangeNotSatisfiable()).headers


@pytest.mark.parametrize("path", ["/nothing", "/", "/späť", "/a?b#c", "//evil.example"])
async def test_an_unknown_path(path: str) -> None:
    document = problem(await get(path))
    assert document["code"] == "not-found"
    assert document["detail"] == f"There is nothing at {path}. The API is at /docs."


@pytest.mark.parametrize("path", ["/number/", "/nothing/", "/begun/"])
async def test_a_slash_at_the_end_is_pointed_out(path: str) -> None:
    document = problem(await get(path))
    assert document["code"] == "not-found"
    assert document["detail"] == f"There is nothing at {path}. Leave the slash at its end out. The API is at /docs."


async def test_an_unknown_path_with_a_query_that_is_no_text() -> None:
    answer = await call(application(), scope(path="/nothing", query_string=b"\xff"))
    assert problem(answer)["code"] == "not-found"


async def test_a_method_that_is_not_allowed() -> None:
    answer = await get("/begun", method="DELETE")
    document = problem(answer)
    assert document["code"] == "method-not-allowed"
    assert document["detail"] == "DELETE is not allowed at /begun. The API is at /docs."
    assert answer.headers["allow"] == "GET, POST"


async def test_a_parameter_that_is_not_valid() -> None:
    document = problem(await get("/number/many"))
    assert document["code"] == "invalid-request"
    assert document["detail"].startswith("The request is not valid: number: Input should be a valid integer")


async def test_what_nobody_expected_is_told_by_an_id_alone_and_logged_with_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logging_kept():
        configure_logging("INFO", "json")
        answer = await get("/number/0", ZeroDivisionError("a secret of ours"))
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
    assert exception["exc_value"] == "a secret of ours"
    assert exception["frames"][-1]["name"] == "number"


@pytest.mark.parametrize("error", [ZeroDivisionError("late"), errors.StorageUnavailable("late")])
async def test_an_answer_that_breaks_off_is_left_to_the_server_to_cut(error: Exception) -> None:
    answer = Answer()
    with capture_logs() as log, pytest.raises(Exception) as raised:  # noqa: PT011  (whatever leads back to the error)
        await application(error)(scope(path="/begun"), Body([], then="silence"), answer.send)
    assert error in (raised.value, raised.value.__cause__)
    assert answer.status == 200
    assert answer.body == b"first"
    assert [line["event"] for line in log] == ["request failed", "request"]


def test_documented_errors_are_grouped_by_status_with_an_example_each() -> None:
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
