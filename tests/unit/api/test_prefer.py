"""The ``Prefer`` header: how long a client wants to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.api.prefer import wait_of


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], None),
        (["respond-async"], None),
        (["wait=10"], 10),
        (["WAIT=10"], 10),
        (["wait = 10"], 10),
        (["\twait=10 "], 10),
        (['wait="10"'], 10),
        ([r'wait="1\0"'], 10),
        (["wait=0"], 0),
        (["wait=007"], 7),
        (["respond-async, wait=5"], 5),
        (["respond-async", "wait=5"], 5),
        (["handling=lenient; strict, wait=5; a=b"], 5),
        (["wait=5;wait=9"], 5),
        (["wait=5, wait=9"], 5),
        (["wait=5", "wait=9"], 5),
        ([",, ,wait=5,"], 5),
        (['foo="a, wait=3; b", wait=5'], 5),
        (['foo="a\\", wait=3", wait=5'], 5),
        (['foo; bar="wait=3, wait=4", wait=5'], 5),
        (['foo="never closed, wait=3'], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=1s"], None),
        (["wait=+1"], None),
        (["wait=\u0661"], None),
        (["wait=1 2"], None),
        (["wait=x, wait=5"], None),
        (["waiting=5"], None),
        (["no-wait=5"], None),
        (["foo=wait=5"], None),
        ([f"wait={'9' * 5000}"], 10**9),
        ([f"wait={'0' * 5000}5"], 5),
    ],
)
def test_wait_is_found_among_preferences(lines: list[str], seconds: int | None) -> None:
    assert wait_of(lines) == seconds


@given(st.lists(st.text(alphabet=' \t",;=\\aw0wait')), st.integers(0, 10**8))
def test_whatever_precedes_in_quotes_is_skipped(pieces: list[str], seconds: int) -> None:
    quoted = "".join(pieces).replace("\\", "\\\\").replace('"', '\\"')
    assert wait_of([f'foo="{quoted}"; bar="{quoted}" , wait={seconds}']) == seconds


@given(st.lists(st.text(alphabet=' \t",;=\\aw0wait9')))
def test_any_header_has_an_answer(lines: list[str]) -> None:
    seconds = wait_of(lines)
    assert seconds is None or 0 <= seconds <= 10**9
