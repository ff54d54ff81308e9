"""The state machine and its transitions."""

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
REPROCESS = {(Status.DONE, Status.NEW), (Status.ERROR, Status.NEW)}
"""The transitions that only reprocessing makes."""


@pytest.mark.parametrize("before", Status)
@pytest.mark.parametrize("after", Status)
def test_exactly_these_transitions_exist(before: Status, after: Status) -> None:
    assert before.may_become(after) == ((before, after) in ARROWS)


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_done_and_error_are_terminal_and_nothing_else_is() -> None:
    assert {status for status in Status if status.terminal} == {Status.DONE, Status.ERROR}


def test_unfinished_images_can_be_claimed() -> None:
    assert set(CLAIMABLE) == {Status.NEW, Status.PROCESSING}


def test_finished_images_can_be_reprocessed() -> None:
    assert set(TERMINAL) == {Status.DONE, Status.ERROR}


def test_the_value_of_a_state_is_its_name() -> None:
    assert [str(status) for status in Status] == ["NEW", "PROCESSING", "DONE", "ERROR"]


@given(events=st.lists(st.sampled_from(Status), max_size=30))
def test_without_reprocessing_a_terminal_state_is_final(events: Sequence[Status]) -> None:
    states = [Status.NEW]
    for event in events:
        if states[-1].may_become(event) and (states[-1], event) not in REPROCESS:
            states.append(event)
    assert states.count(Status.NEW) == 1
    assert all(status is Status.PROCESSING for status in states[1:-1])
    if states[-1].terminal:
        assert states[-2] is Status.PROCESSING


@given(events=st.lists(st.sampled_from(Status), max_size=30))
def test_only_new_follows_a_terminal_state(events: Sequence[Status]) -> None:
    states = [Status.NEW]
    for event in events:
        if states[-1].may_become(event):
            states.append(event)
    for before, after in pairwise(states):
        assert before.terminal == (after is Status.NEW)
        assert after is not Status.NEW or (before, after) in REPROCESS


@pytest.mark.parametrize("start", Status)
def test_a_terminal_state_is_reachable_from_every_state(start: Status) -> None:
    reached = {start}
    while more := {after for before in reached for after in TRANSITIONS[before]} - reached:
        reached |= more
    assert any(status.terminal for status in reached)
