"""Events are counted under labels that are known in advance."""

import time
from itertools import count, pairwise
from uuid import UUID, uuid4

import httpx
import pytest
from uuid_utils.compat import uuid7

from harness.counted import PREFIX, counted, series
from harness.plain_http import NO_TLS
from harness.plans import ORIGINAL
from image_service.domain.image import Claim
from image_service.domain.lane import Lane
from image_service.errors import StartError
from image_service.observability.exposition import serve_metrics
from image_service.observability.metrics import Metrics
from image_service.ports import NULL_OBSERVER, AttemptOutcome


def claim(image_id: UUID, *, reprocessing: bool = False) -> Claim:
    return Claim(
        image_id=image_id,
        attempt=1,
        attempts_charged=1,
        decoder_failures=0,
        sha256="ab" * 32,
        reprocessing=reprocessing,
    )


def aged(seconds: float) -> UUID:
    """The id of an image accepted ``seconds`` ago."""
    milliseconds = int((time.time() - seconds) * 1000)
    return UUID(int=milliseconds << 80 | uuid7().int & ((1 << 80) - 1))


def test_time_to_done_starts_at_acceptance() -> None:
    metrics = Metrics()
    metrics.attempted(claim(aged(7)), AttemptOutcome.DONE)
    assert counted(metrics, "image_done_seconds_count") == 1
    assert counted(metrics, "image_done_seconds_sum") == pytest.approx(7, abs=1)
    assert counted(metrics, "attempts_total", outcome="done") == 1


@pytest.mark.parametrize(
    ("image_id", "reprocessing", "outcome"),
    [
        (aged(7), True, AttemptOutcome.DONE),
        (uuid4(), False, AttemptOutcome.DONE),
        (aged(7), False, AttemptOutcome.RETRY),
    ],
    ids=["reprocessed", "id without a time", "not done"],
)
def test_other_attempts_have_no_time_to_done(image_id: UUID, outcome: AttemptOutcome, *, reprocessing: bool) -> None:
    metrics = Metrics()
    metrics.attempted(claim(image_id, reprocessing=reprocessing), outcome)
    assert counted(metrics, "image_done_seconds_count") == 0


def test_clock_that_is_behind_counts_as_zero_seconds() -> None:
    metrics = Metrics()
    metrics.attempted(claim(aged(-60)), AttemptOutcome.DONE)
    assert counted(metrics, "image_done_seconds_sum") == 0


def test_failed_attempt_is_counted_by_code_and_outcome() -> None:
    metrics = Metrics()
    metrics.attempted(claim(aged(0)), AttemptOutcome.RETRY, "decoder-crashed")
    metrics.attempted(claim(aged(0)), AttemptOutcome.ERROR, "corrupt-image")
    metrics.attempted(claim(aged(0)), AttemptOutcome.LOST)
    assert counted(metrics, "attempt_failures_total", code="decoder-crashed", outcome="retry") == 1
    assert counted(metrics, "attempt_failures_total", code="corrupt-image", outcome="error") == 1
    assert [counted(metrics, "attempts_total", outcome=each) for each in AttemptOutcome] == [None, 1, 1, *[None] * 3, 1]


def test_unavailable_queue_is_down_and_keeps_its_last_depth() -> None:
    metrics = Metrics()
    metrics.probed({"queue": True}, {Lane.NORMAL: 3})
    metrics.probed({"queue": False}, None)
    assert counted(metrics, "dependency_up", dependency="queue") == 0
    assert counted(metrics, "queue_waiting_messages", lane="normal") == 3


def test_backlog_gauges_show_when_they_were_measured() -> None:
    metrics = Metrics()
    assert counted(metrics, "backlog_measured_timestamp_seconds") == 0
    metrics.backlog_measured(5, 12.5)
    assert counted(metrics, "unfinished_images") == 5
    assert counted(metrics, "oldest_unfinished_age_seconds") == 12.5
    assert counted(metrics, "backlog_measured_timestamp_seconds") == pytest.approx(time.time(), abs=60)
    metrics.backlog_measured(0, None)
    assert counted(metrics, "oldest_unfinished_age_seconds") == 0


def test_failed_run_does_not_update_the_last_success() -> None:
    metrics = Metrics()
    metrics.job_ended("reconciler", succeeded=False)
    assert counted(metrics, "task_runs_total", task="reconciler", outcome="failed") == 1
    assert counted(metrics, "task_last_success_timestamp_seconds", task="reconciler") is None
    metrics.job_ended("reconciler", succeeded=True)
    assert counted(metrics, "task_last_success_timestamp_seconds", task="reconciler") == pytest.approx(
        time.time(), abs=60
    )


def test_decoder_states_are_read_at_every_scrape() -> None:
    metrics = Metrics()
    numbers = count(1)
    metrics.track_decoder_pool("main", slots=3, busy=lambda: next(numbers), idle=lambda: 0)
    assert counted(metrics, "decoder_slots", pool="main") == 3
    read = [counted(metrics, "decoders", pool="main", state="busy") or 0 for _ in range(3)]
    assert all(earlier < later for earlier, later in pairwise(read))


def test_counters_are_0_before_the_first_event() -> None:
    metrics = Metrics()
    metrics.expect_api(backlog_limit=10)
    metrics.expect_worker()
    assert counted(metrics, "uploads_total", queued="false") == 0
    assert counted(metrics, "backlog_limit_images") == 10
    assert [counted(metrics, "attempts_total", outcome=each) for each in AttemptOutcome] == [0] * len(AttemptOutcome)


def test_metrics_objects_are_independent() -> None:
    one, other = Metrics(), Metrics()
    one.accepted(ORIGINAL, queued=True)
    assert counted(other, "uploads_total", queued="true") is None


def test_names_follow_the_conventions() -> None:
    metrics = Metrics()
    names = [family.name for family in metrics.registry.collect() if family.name.startswith(PREFIX)]
    assert len(names) > 20
    for family in metrics.registry.collect():
        assert family.documentation.endswith(".") or not family.name.startswith(PREFIX)
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes"))


def test_metrics_are_served_for_the_duration_of_the_block() -> None:
    metrics = Metrics()
    metrics.accepted(ORIGINAL, queued=True)
    with serve_metrics(metrics, "127.0.0.1", 0) as address:
        answer = httpx.get(address, trust_env=False, verify=NO_TLS)
        assert answer.status_code == 200
        assert 'image_service_uploads_total{queued="true"} 1.0' in answer.text
        assert "_created" not in answer.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, trust_env=False, verify=NO_TLS)


def test_port_in_use_is_explained() -> None:
    with serve_metrics(Metrics(), "127.0.0.1", 0) as address:
        port = httpx.URL(address).port
        assert port is not None
        with (
            pytest.raises(StartError, match=rf"Cannot serve metrics on 127.0.0.1 port {port}: .*METRICS_PORT"),
            serve_metrics(Metrics(), "127.0.0.1", port),
        ):
            pass


def test_null_observer_accepts_every_event() -> None:
    NULL_OBSERVER.accepted(ORIGINAL, queued=True)
    NULL_OBSERVER.claimed(Lane.NORMAL, None)
    NULL_OBSERVER.attempted(claim(aged(0)), AttemptOutcome.DONE)
    NULL_OBSERVER.probed({}, None)
    NULL_OBSERVER.backlog_measured(0, None)
    NULL_OBSERVER.job_ended("reconciler", succeeded=True)


def test_no_label_is_chosen_by_clients() -> None:
    metrics = Metrics()
    metrics.accepted(ORIGINAL, queued=True)
    metrics.claimed(Lane.EXPRESS, None)
    labels = {name for labels in series(metrics).values() for pairs in labels for name, _ in pairs}
    assert not labels & {"path", "id", "image_id", "key", "client", "request_id", "name"}
