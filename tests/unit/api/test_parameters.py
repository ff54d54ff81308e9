"""Header values with parameters."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.api.parameters import parse_parameters


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
