"""These tests run where the hosts are installed (`make test-hosts`), and nowhere else."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALLED = importlib.util.find_spec("stable_worldmodel") is not None
collect_ignore_glob = [] if INSTALLED else ["test_*.py"]
THEIR_WARNINGS = (
    "ignore::UserWarning:gymnasium",
    "ignore::DeprecationWarning:gymnasium",
    "ignore::UserWarning:stable_worldmodel",
    "ignore:LanceDB is not fork-safe",
)

if INSTALLED:
    from builders.hosts import QuadraticModel, box, make_bundle, plan_config

    from vj2_ddim_benchmark.two_room import import_stable_worldmodel
    from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver

    import_stable_worldmodel()


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for warning in THEIR_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def make_solver(bundle):
    def make(model=None, horizon=2, action_block=5, num_envs=4, **settings):
        if model is None and "cost" not in settings:
            model = QuadraticModel()
        settings = {"num_candidates": 8, "num_inference_steps": 2, **settings}
        solver = StableWorldModelSolver(
            str(bundle), model, provider="cpu", num_threads=1, **settings
        )
        config = plan_config(horizon, action_block)
        solver.configure(action_space=box(num_envs), n_envs=num_envs, config=config)
        return solver

    return make
