"""Which types a client's Accept header names."""

from time import process_time

import pytest
from starlette.requests import Request

from harness.accept import BROWSERS
from harness.asgi import scope
from image_service.api.negotiation import named_types


def types(*lines: str) -> set[str]:
    asked = Request({**scope("GET"), "headers": [(b"accept", line.encode("latin-1")) for line in lines]})
    return {each.removeprefix("image/") for each in named_types(asked) if each.startswith("image/")}


@pytest.mark.parametrize("browser", BROWSERS)
def test_browsers_name_what_they_show(browser: str) -> None:
    header, named = BROWSERS[browser]
    assert types(*([] if header is None else [header])) == named


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("image/avif;q=0", set()),
        ("image/avif;q=0.000", set()),
        ("image/avif;q=0.001", {"avif"}),
        ("image/avif;q=1.000", {"avif"}),
        ("image/avif;q=0, image/avif", set()),
        ("image/avif, image/avif;q=0", set()),
        ("*/*, image/*, image/webp;q=0", set()),
        ("image/AVIF, IMAGE/WebP;Q=0.5", {"avif", "webp"}),
        (" \timage/avif \t; \tq=0.5 , image/webp", {"avif", "webp"}),
        (",,, ,image/webp,,", {"webp"}),
        ("image/webp;q=0.5;extension=1", {"webp"}),
        # Malformed members and other parameters.
        ("image/avif;q=2, image/webp;q=0.1234, image/png;q=-1, image/gif;q, image/jxl;q=.5, image/jpeg;q=", set()),
        ("image/avif;q=nan, image/webp;q=1.001, image/png;q=0,5", set()),
        ("image/avif;level=1, image/webp", {"webp"}),
        ("image/, /webp, image, avif, image/a/b, image /webp, image/webp q=1", set()),
        ('text/x;a="image/avif, image/avif, image/jxl", image/webp', {"webp"}),
        ('text/x;a="\\", image/avif, ", image/webp', {"webp"}),
        ('text/x;a="never closed, image/avif', set()),
        ("image/\xe4vif, image/web\u00df", set()),
        ("", set()),
    ],
)
def test_only_well_formed_members_that_name_a_type_count(header: str, named: set[str]) -> None:
    assert types(header) == named


def test_several_lines_are_one_list() -> None:
    assert types("image/avif", "image/webp;q=0.1", "image/avif;q=0") == {"webp"}


def test_a_long_header_names_nothing() -> None:
    assert types("image/webp" + ", text/html" * 150) == {"webp"}
    assert types("image/webp" + ", text/html" * 250) == set()
    assert types(*["image/webp" + ", text/html" * 50] * 5) == set()
    assert types("," * 100 + "image/webp") == set()


@pytest.mark.parametrize("unit", [",", '"', '\\"', ";", "image/a;", "image/x,", "q=0.", "a/"])
def test_every_header_within_the_bounds_is_read_at_once(unit: str) -> None:
    lines = ['"' + unit * (2000 // len(unit))]
    began = process_time()
    for _ in range(20):
        types(*lines)
    assert process_time() - began < 2
