"""Where torch is not installed, as in `make test-runtime`, what compares with it is left out."""

from importlib.util import find_spec

WITH_TORCH = ["test_ddim.py", "test_ranker_bundle.py", "test_schedule.py"]
collect_ignore = [] if find_spec("torch") else WITH_TORCH
