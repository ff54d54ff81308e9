"""What is counted is what happened, under labels that are known beforehand."""

import time
from uuid import UUID, uuid4

import httpx
import pytest
from uuid_utils.compat import uuid7

from harness.counted import PREFIX, counted, series
from harness.plans import ORIGINAL
from image_service.domain.image import Claim
from image_service.domain.lane import Lane
from image_service.errors import StartError
from image_service.observability.exposition import exposed
from image_service.observability.metrics import Metrics
from image_service.ports import NULL_OBSERVER, AttemptOutcome


def claim(image_id: UUID, *, again: bool = False) -> Claim:
    return Claim(image_id=image_id, attempt=1, attempts_charged=1, decoder_failures=0, reprocessing=again)


def aged(seconds: float) -> UUID:
    """The id of an image that was accepted so many seconds ago."""
    milliseconds = int((time.time() - seconds) * 1000)
    return UUID(int=milliseconds << 80 | uuid7().int & ((1 << 80) - 1))


def test_an_image_s_way_is_timed_from_its_acceptance() -> None:
    metrics = Metrics()
    metrics.attempted(claim(aged(7)), AttemptOutcome.DONE)
    assert counted(metrics, "image_done_seconds_count") == 1
    assert counted(metrics, "image_done_seconds_sum") == pytest.approx(7, abs=1)
    assert counted(metrics, "attempts_total", ending="done") == 1


@pytest.mark.parametrize(
    ("image_id", "again", "ending"),
    [
        (aged(7), True, AttemptOutcome.DONE),
        (uuid4(), False, AttemptOutcome.DONE),
        (aged(7), False, AttemptOutcome.RETRY),
    ],
    ids=["rendered again", "an id without a time", "not done"],
)
def test_nothing_else_is_timed(image_id: UUID, ending: AttemptOutcome, *, again: bool) -> None:
    metrics = Metrics()
    metrics.attempted(claim(image_id, again=again), ending)
    assert counted(metrics, "image_done_seconds_count") == 0


def test_a_clock_that_is_behind_makes_no_negative_time() -> None:
    metrics = Metrics()
    metrics.attempted(claim(aged(-60)), AttemptOutcome.DONE)
    assert counted(metrics, "image_done_seconds_sum") == 0


def test_an_attempt_that_an_error_ended_counts_under_its_code() -> None:
    metrics = Metrics()
    metrics.attempted(claim(aged(0)), AttemptOutcome.RETRY, "decoder-crashed")
    metrics.attempted(claim(aged(0)), AttemptOutcome.ERROR, "corrupt-image")
    metrics.attempted(claim(aged(0)), AttemptOutcome.LOST)
    assert counted(metrics, "attempt_failures_total", code="decoder-crashed", ending="retry") == 1
    assert counted(metrics, "attempt_failures_total", code="corrupt-image", ending="error") == 1
    assert [counted(metrics, "attempts_total", ending=each) for each in AttemptOutcome] == [None, 1, 1, None, 1]


def test_the_last_answer_of_a_queue_that_is_away_stays_and_its_absence_shows() -> None:
    metrics = Metrics()
    metrics.probed({"queue": True}, {Lane.NORMAL: 3})
    metrics.probed({"queue": False}, None)
    assert counted(metrics, "dependency_up", dependency="queue") == 0
    assert counted(metrics, "queue_waiting_messages", lane="normal") == 3


def test_a_survey_tells_when_it_was_made() -> None:
    metrics = Metrics()
    assert counted(metrics, "survey_timestamp_seconds") == 0
    metrics.backlog_measured(5, 12.5)
    assert counted(metrics, "unfinished_images") == 5
    assert counted(metrics, "oldest_unfinished_age_seconds") == 12.5
    assert counted(metrics, "survey_timestamp_seconds") == pytest.approx(time.time(), abs=60)
    metrics.backlog_measured(0, None)
    assert counted(metrics, "oldest_unfinished_age_seconds") == 0


def test_a_round_that_failed_does_not_count_as_a_success() -> None:
    metrics = Metrics()
    metrics.job_ended("reconciler", succeeded=False)
    assert counted(metrics, "task_rounds_total", task="reconciler", outcome="failed") == 1
    assert counted(metrics, "task_last_success_timestamp_seconds", task="reconciler") is None
    metrics.job_ended("reconciler", succeeded=True)
    assert counted(metrics, "task_last_success_timestamp_seconds", task="reconciler") == pytest.approx(
        time.time(), abs=60
    )


def test_states_are_looked_up_when_they_are_asked_for() -> None:
    metrics = Metrics()
    numbers = iter([1, 2])
    metrics.watch_decoders("busy", "main", lambda: next(numbers))
    assert [counted(metrics, "decoders", pool="main", state="busy") for _ in range(2)] == [1, 2]


def test_what_can_be_counted_is_shown_as_0_before_it_happens() -> None:
    metrics = Metrics()
    metrics.expect_api(backlog_limit=10)
    metrics.expect_worker({"main": 3})
    assert counted(metrics, "uploads_total", queued="false") == 0
    assert counted(metrics, "backlog_limit_images") == 10
    assert counted(metrics, "decoder_slots", pool="main") == 3
    assert [counted(metrics, "attempts_total", ending=each) for each in AttemptOutcome] == [0] * len(AttemptOutcome)


def test_two_processes_in_one_share_no_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.accepted(ORIGINAL, queued=True)
    assert counted(other, "uploads_total", queued="true") is None


def test_every_name_follows_the_conventions() -> None:
    metrics = Metrics()
    names = [family.name for family in metrics.registry.collect() if family.name.startswith(PREFIX)]
    assert len(names) > 20
    for family in metrics.registry.collect():
        assert family.documentation.endswith(".") or not family.name.startswith(PREFIX)
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes"))


def test_metrics_are_served_until_the_end_of_the_block() -> None:
    metrics = Metrics()
    metrics.accepted(ORIGINAL, queued=True)
    with exposed(metrics, "127.0.0.1", 0) as address:
        answer = httpx.get(address, trust_env=False)
        assert answer.status_code == 200
        assert 'image_service_uploads_total{queued="true"} 1.0' in answer.text
        assert "_created" not in answer.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, trust_env=False)


def test_a_port_in_use_is_explained() -> None:
    with exposed(Metrics(), "127.0.0.1", 0) as address:
        port = httpx.URL(address).port
        assert port is not None
        with (
            pytest.raises(StartError, match=rf"Cannot serve metrics on 127.0.0.1 port {port}: .*METRICS_PORT"),
            exposed(Metrics(), "127.0.0.1", port),
        ):
            pass


def test_nobody_has_to_watch() -> None:
    NULL_OBSERVER.accepted(ORIGINAL, queued=True)
    NULL_OBSERVER.claimed(Lane.NORMAL, None)
    NULL_OBSERVER.attempted(claim(aged(0)), AttemptOutcome.DONE)
    NULL_OBSERVER.probed({}, None)
    NULL_OBSERVER.backlog_measured(0, None)
    NULL_OBSERVER.job_ended("reconciler", succeeded=True)


def test_a_time_series_is_never_named_by_a_client() -> None:
    metrics = Metrics()
    metrics.accepted(ORIGINAL, queued=True)
    metrics.claimed(Lane.EXPRESS, None)
    labels = {name for labels in series(metrics).values() for pairs in labels for name, _ in pairs}
    assert not labels & {"path", "id", "image_id", "key", "client", "request_id", "name"}
