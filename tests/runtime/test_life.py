"""The life of a loaded bundle: threads, other processes, failure while running, and its end."""

import multiprocessing
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from builders.bundles import make_bundle
from builders.forks import WAIT_S, in_a_fork

from vj2_ddim_plugin.errors import ProviderError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx.session import OnnxGraph
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.testing import QuadraticCost

GOALS = np.random.default_rng(0).standard_normal((4, 2, 3), np.float32)
PROBLEM = PlanningProblem({"goal": GOALS}, QuadraticCost(np.full((10, 3), 0.3)), seed=5)

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
# Python 3.12 and later warn of a fork while there are threads, which is what is tried here.
with_threads = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture
def optimizer(folder):
    return DDIMOptimizer.from_bundle(
        folder, provider="cpu", num_threads=2, num_inference_steps=3, num_candidates=4
    )


@pytest.fixture
def graph(folder):
    return OnnxGraph(folder / "denoiser.onnx", "cpu")


def feeds(rows=2):
    return {
        "sample": np.ones((rows, 6, 1), np.float32),
        "timestep": np.zeros(rows, np.int64),
        "condition": np.ones((rows, 2, 3), np.float32),
    }


def assert_same(first, second):
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.cost, second.cost)
    assert first.provider == second.provider


# Threads.


def test_eight_threads_give_the_plans_of_one(optimizer):
    problems = [PlanningProblem({"goal": GOALS}, seed=seed) for seed in range(16)]
    alone = [optimizer.optimize(problem) for problem in problems]
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(alone, pool.map(optimizer.optimize, problems), strict=True):
            assert_same(one, other)


# Other processes.


def test_a_pickled_optimizer_plans_the_same_without_its_folder(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "bundle")
    optimizer = DDIMOptimizer.from_bundle(copy, provider="cpu", num_inference_steps=3)
    expected, pickled = optimizer.optimize(PROBLEM), pickle.dumps(optimizer)
    shutil.rmtree(copy)
    assert_same(pickle.loads(pickled).optimize(PROBLEM), expected)
    assert_same(optimizer.optimize(PROBLEM), expected)


@forking
@with_threads
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_worker_process_plans_what_its_parent_plans(optimizer, method):
    expected = optimizer.optimize(PROBLEM)
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = [pool.apply_async(optimizer.optimize, (PROBLEM,)) for _ in range(2)]
        for result in found:
            assert_same(result.get(WAIT_S), expected)
    assert_same(optimizer.optimize(PROBLEM), expected)


@forking
@with_threads
def test_a_fork_plans_with_what_it_inherited(optimizer):
    expected = optimizer.optimize(PROBLEM).actions

    def in_threads():
        with ThreadPoolExecutor(4) as pool:
            plans = pool.map(optimizer.optimize, [PROBLEM] * 8)
            return all(np.array_equal(plan.actions, expected) for plan in plans)

    assert in_a_fork(in_threads)
    assert in_a_fork(lambda: in_threads() and in_a_fork(in_threads))  # a fork of a fork
    np.testing.assert_array_equal(optimizer.optimize(PROBLEM).actions, expected)


@forking
@with_threads
def test_a_fork_makes_one_session_for_all_its_threads(graph, monkeypatch):
    made = []
    real = onnxruntime.InferenceSession
    count = lambda *args, **options: made.append(1) or real(*args, **options)  # noqa: E731
    monkeypatch.setattr(onnxruntime, "InferenceSession", count)

    def work():
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(graph.run, [feeds()] * 16))
        return len(made) == 1

    assert in_a_fork(work)
    assert made == []


@forking
@with_threads
def test_a_fork_in_the_midst_of_opening_is_not_locked_out(graph):
    with graph._opening:
        assert in_a_fork(lambda: len(graph.run(feeds())) == 1)


@forking
@with_threads
def test_a_fork_may_close_what_it_inherited_and_the_parent_goes_on(optimizer):
    expected = optimizer.optimize(PROBLEM)

    def closes():
        optimizer.close()
        with pytest.raises(ProviderError, match="closed"):
            optimizer.optimize(PROBLEM)
        return True

    assert in_a_fork(closes)
    assert_same(optimizer.optimize(PROBLEM), expected)


# Failure while running.


def test_a_session_that_dies_is_told_and_the_others_live(folder):
    model, other = BundleModel(folder, "cpu"), BundleModel(folder, "cpu")

    def die(feeds):
        raise RuntimeError("device lost")

    model._denoiser.graph._run = die
    with pytest.raises(ProviderError, match=r"denoiser.onnx failed .*: device lost"):
        model.denoise(feeds()["sample"], 1, feeds()["condition"])
    assert other.denoise(feeds()["sample"], 1, feeds()["condition"]).shape == (2, 6, 1)


# The end.


def test_a_closed_graph_says_so_and_what_to_do(graph):
    graph.close()
    graph.close()
    with pytest.raises(ProviderError, match=r"denoiser.onnx was closed.*DDIMOptimizer.from_bundle"):
        graph.run(feeds())


def test_with_closes(folder, graph):
    with graph:
        graph.run(feeds())
    with BundleModel(folder, "cpu") as model:
        encoded = model.encode({"goal": GOALS})
    with pytest.raises(ProviderError, match="closed"):
        graph.run(feeds())
    with pytest.raises(ProviderError, match=r"condition.onnx was closed"):
        model.encode({"goal": GOALS})
    with pytest.raises(ProviderError, match=r"denoiser.onnx was closed"):
        model.denoise(np.ones((4, 6, 1), np.float32), 1, encoded.condition)
    model.close()


def test_closing_frees_the_session(folder, monkeypatch):
    alive = set()

    class Session(onnxruntime.InferenceSession):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    model = BundleModel(folder, "cpu")
    assert len(alive) == 2
    model.close()
    assert alive == set()


def test_an_unconditional_model_is_closed_too(tmp_path):
    model = BundleModel(make_bundle(tmp_path / "bundle", conditional=False), "cpu")
    model.close()
    with pytest.raises(ProviderError, match="closed"):
        model.denoise(np.ones((1, 6, 1), np.float32), 1, None)


def test_what_was_closed_stays_closed_in_another_process(graph):
    graph.close()
    with pytest.raises(ProviderError, match="closed"):
        pickle.loads(pickle.dumps(graph)).run(feeds())


def test_a_run_under_way_ends_well_when_another_thread_closes(graph):
    begun, closed = threading.Event(), threading.Event()
    run = graph._run

    def slow(feeds):
        begun.set()
        assert closed.wait(WAIT_S)
        return run(feeds)

    graph._run = slow
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(graph.run, feeds())
        assert begun.wait(WAIT_S)
        graph.close()
        closed.set()
        assert len(running.result(WAIT_S)) == 1
