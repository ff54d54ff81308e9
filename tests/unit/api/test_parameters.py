"""Header values with parameters."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pace import Stopwatch
from image_service.api.parameters import parse_parameters

MAX_LINE = 8192
"""Bytes of the longest header line that can reach the parser."""


@pytest.mark.parametrize(
    ("value", "main", "parameters"),
    [
        ("", "", {}),
        (";", "", {}),
        ("Text/Plain", "text/plain", {}),
        ("a/b ; C = d", "a/b", {"c": ["d"]}),
        ('a/b; c="d;e=\\"f\\\\"; g=h', "a/b", {"c": ['d;e="f\\'], "g": ["h"]}),
        ('a/b; c="d"junk; e=f', "a/b", {"c": ["d"], "e": ["f"]}),
        ('a/b; c="d', "a/b", {"c": ["d"]}),
        ('a/b; c="d\\', "a/b", {"c": ["d"]}),
        ('a/b; c=""', "a/b", {"c": [""]}),
        ("a/b; c", "a/b", {}),
        ("a/b; c; d=e", "a/b", {"d": ["e"]}),
        ("a/b; =c", "a/b", {}),
        ("a/b; c=", "a/b", {"c": [""]}),
        ("a/b; boundary====170===", "a/b", {"boundary": ["===170==="]}),
        ("a/b; boundary=x:y/z?(1), 2", "a/b", {"boundary": ["x:y/z?(1), 2"]}),
        ("a/b; c=d; c=e", "a/b", {"c": ["d", "e"]}),
    ],
)
def test_parameters_are_found(value: str, main: str, parameters: Mapping[str, Sequence[str]]) -> None:
    assert parse_parameters(value) == (main, parameters)


@given(st.text(alphabet='ab=;"\\ \t\r\n', max_size=60))
def test_any_value_is_parsed(value: str) -> None:
    main, parameters = parse_parameters(value)
    assert len(main) + sum(len(each) for values in parameters.values() for each in values) <= len(value)


@pytest.mark.parametrize("piece", ['; a="', "; a=\\", '; a="\\', '"', "\\", ";", "=", ";=", "; a=b", " "])
def test_time_is_linear(piece: str) -> None:
    """The value is 100 times as long as the longest that the server takes: quadratic time would be seen."""
    value = "a/b; x=" + piece * (100 * MAX_LINE // len(piece))
    watch = Stopwatch()
    parse_parameters(value)
    assert watch.seconds < 2
