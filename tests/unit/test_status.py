"""The state machine: its arrows, and that no series of events leaves them."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_service.domain.status import CLAIMABLE, TERMINAL, TRANSITIONS, Status

ARROWS = {
    (Status.NEW, Status.PROCESSING),
    (Status.PROCESSING, Status.PROCESSING),
    (Status.PROCESSING, Status.DONE),
    (Status.PROCESSING, Status.ERROR),
    (Status.DONE, Status.NEW),
    (Status.ERROR, Status.NEW),
}
AGAIN = {(Status.DONE, Status.NEW), (Status.ERROR, Status.NEW)}
"""The arrows that only somebody's wish for another rendering takes."""


@pytest.mark.parametrize("before", Status)
@pytest.mark.parametrize("after", Status)
def test_exactly_these_moves_exist(before: Status, after: Status) -> None:
    assert before.may_become(after) == ((before, after) in ARROWS)


def test_every_state_has_its_moves_written_down() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_done_and_error_are_terminal_and_nothing_else_is() -> None:
    assert {status for status in Status if status.terminal} == {Status.DONE, Status.ERROR}


def test_what_is_not_finished_can_be_claimed() -> None:
    assert set(CLAIMABLE) == {Status.NEW, Status.PROCESSING}


def test_what_is_finished_can_be_reprocessed() -> None:
    assert set(TERMINAL) == {Status.DONE, Status.ERROR}


def test_a_state_is_spelled_like_its_name() -> None:
    assert [str(status) for status in Status] == ["NEW", "PROCESSING", "DONE", "ERROR"]


@given(wishes=st.lists(st.sampled_from(Status), max_size=30))
def test_any_series_of_events_goes_one_way_and_stops_at_the_first_end(wishes: Sequence[Status]) -> None:
    life = [Status.NEW]
    for wish in wishes:
        if life[-1].may_become(wish) and (life[-1], wish) not in AGAIN:
            life.append(wish)
    assert life.count(Status.NEW) == 1
    assert all(status is Status.PROCESSING for status in life[1:-1])
    if life[-1].terminal:
        assert life[-2] is Status.PROCESSING


@given(wishes=st.lists(st.sampled_from(Status), max_size=30))
def test_every_life_after_an_end_begins_anew(wishes: Sequence[Status]) -> None:
    life = [Status.NEW]
    for wish in wishes:
        if life[-1].may_become(wish):
            life.append(wish)
    for before, after in pairwise(life):
        assert before.terminal == (after is Status.NEW)
        assert after is not Status.NEW or (before, after) in AGAIN


@pytest.mark.parametrize("start", Status)
def test_an_end_can_be_reached_from_everywhere(start: Status) -> None:
    reached = {start}
    while more := {after for before in reached for after in TRANSITIONS[before]} - reached:
        reached |= more
    assert any(status.terminal for status in reached)
