"""Where torch is not installed, as in `make test-runtime`, what compares with it is left out."""

import time
from importlib.util import find_spec

import pytest

WITH_TORCH = ["test_ddim.py", "test_ranker_bundle.py", "test_schedule.py"]
collect_ignore = [] if find_spec("torch") else WITH_TORCH


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when something is said to take time."""
    now = {"s": 0.0}
    monkeypatch.setattr(time, "perf_counter", lambda: now["s"])
    return now
