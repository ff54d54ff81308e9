"""Requests generated from an OpenAPI description, and what Schemathesis checks of the responses.

A module of its own that only its test imports when it runs: importing Schemathesis takes a second.
"""

from collections.abc import Iterable
from typing import Any, Final

import schemathesis
from fastapi import FastAPI
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

Case = schemathesis.Case[Any]
_CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def cases(app: FastAPI, operation: str, modes: Iterable[str]) -> st.SearchStrategy[Case]:
    """Return generated requests of an operation such as ``GET /images``, of modes such as ``POSITIVE``."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    method, path = operation.split()
    return st.one_of([schema[path][method].as_strategy(generation_mode=GenerationMode[mode]) for mode in modes])


def ask(case: Case) -> int:
    """Send a request, check the response, and return its status."""
    return int(case.call_and_validate(checks=_CHECKS).status_code)
