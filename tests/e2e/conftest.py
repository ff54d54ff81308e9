"""How the service's processes are started."""

import pytest

from harness.service import Service


@pytest.fixture(autouse=True)
def start_quickly(request: pytest.FixtureRequest, fork_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the service's processes, except in tests marked with ``real_start``."""
    if request.node.get_closest_marker("real_start") is None:
        monkeypatch.setattr(Service, "fork_server", fork_server)
