"""Serves the metrics to Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import disable_created_metrics, start_http_server

from image_service.errors import StartError
from image_service.observability.metrics import Metrics


@contextmanager
def serve_metrics(metrics: Metrics, host: str, port: int) -> Iterator[str]:
    """Serve the metrics for the duration of the block, and yield their URL; port 0 picks a free one.

    A thread of its own serves them from memory, so that they are served whatever else hangs.

    Raises:
        StartError: the address cannot be listened on.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to Prometheus
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        raise StartError(
            f"Cannot serve metrics on {host} port {port}: {error.strerror or error}. "
            "Stop what uses it, or choose another with METRICS_PORT; two processes on one machine need two."
        ) from error
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
