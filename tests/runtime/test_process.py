"""What belongs to one process: inherited sessions, the share of the cores, what is sent home."""

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import onnxruntime
import pytest
from builders.bundles import describe, make_bundle, save_graph, tensor
from builders.forks import WAIT_S, in_a_fork
from onnx import helper

from vj2_ddim_plugin import process
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.onnx.session import OnnxGraph
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.process import available_cores
from vj2_ddim_plugin.testing import QuadraticCost

GOALS = np.random.default_rng(0).standard_normal((4, 2, 3), np.float32)
PROBLEM = PlanningProblem({"goal": GOALS}, QuadraticCost(np.full((10, 3), 0.3)), seed=5)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


# Forks.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")
    inputs = [tensor("candidates", ["B", 6, 1]), tensor("condition", ["B", 2, 3])]
    nodes = [
        helper.make_node("ReduceMean", ["candidates"], ["a"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["condition"], ["b"], axes=[1, 2], keepdims=0),
        helper.make_node("Add", ["a", "b"], ["predicted_cost"]),
    ]
    save_graph(folder / "ranker.onnx", nodes, inputs, [tensor("predicted_cost", ["B"])])
    return describe(folder)


def loaded(folder, **settings):
    return DDIMOptimizer.from_bundle(
        folder, provider="cpu", num_threads=2, num_inference_steps=3, num_ranked=4, **settings
    )


def never_ran(held):
    held.clear()
    gc.collect()


def planned_with(held):
    for each in held:
        each.optimize(PROBLEM)
    held.clear()
    gc.collect()


def one_of_two(held):
    held[0].optimize(PROBLEM)
    del held[0]
    gc.collect()
    held[0].optimize(PROBLEM)


def closed(held):
    for each in held:
        each.close()


def in_a_circle(held):
    held.append(held)
    never_ran([held])
    del held
    gc.collect()


def forked_again(held):
    pid = os.fork()
    if pid == 0:
        signal.alarm(WAIT_S)
        planned_with(held)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    planned_with(held)


WORKS = (never_ran, planned_with, one_of_two, closed, in_a_circle, forked_again)
FORKS = """
import importlib.util, os, signal, sys
sys.path[:] = {path!r}
spec = importlib.util.spec_from_file_location("here", {file!r})
here = sys.modules["here"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
held = [here.loaded({folder!r}), here.loaded({folder!r})]
expected = held[0].optimize(here.PROBLEM).actions
held[1:] = [here.loaded({folder!r})]  # which has not run but for its warm-up
for work in here.WORKS:
    for end in (os._exit, sys.exit):
        if (pid := os.fork()) == 0:
            signal.alarm(20)
            work(held)
            end(0)
        print(work.__name__, end.__name__, os.waitpid(pid, 0)[1])
assert (held[0].optimize(here.PROBLEM).actions == expected).all()
"""


def test_a_forked_process_may_free_what_it_inherited(folder):
    code = FORKS.format(path=sys.path, file=__file__, folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    ends = [f"{work.__name__} {end} 0" for work in WORKS for end in ("_exit", "exit")]
    assert done.stdout.splitlines()[-len(ends) :] == ends


def test_a_pool_of_forks_plans_and_ends(folder):
    optimizer = loaded(folder)
    expected = optimizer.optimize(PROBLEM).actions
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = [pool.apply_async(optimizer.optimize, (PROBLEM,)) for _ in range(4)]
        for result in found:
            np.testing.assert_array_equal(result.get(WAIT_S).actions, expected)
        pool.close()
        pool.join()


def test_locks_that_another_thread_holds_are_new_in_a_fork(folder):
    pace, graph = Pace(), OnnxGraph(folder / "condition.onnx", "cpu")
    with pace._lock, graph._opening:
        assert in_a_fork(lambda: pace.record("cost", 1, 1.0) is None)
        assert in_a_fork(lambda: len(graph.run({"goal": GOALS})) == 2)


def test_forks_beside_threads_that_plan_and_load(folder):
    optimizer, stop = loaded(folder), threading.Event()

    def busy():
        while not stop.is_set():
            optimizer.optimize(PROBLEM)
            loaded(folder).close()

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert in_a_fork(lambda: planned_with([optimizer]) is None)
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# The share of the cores.


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/not/seen/here\n", {"cpu.max": "400000 100000"}, 4),
        (
            "4:cpu,cpuacct:/x\n3:cpuset:/\n0::/\n",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "200000\n",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/\n", {"cpu.max": "1 0"}, 8),
        ("nonsense\n\n::\n", {"cpu.max": "what is this"}, 8),
        (None, {}, 8),
    ],
)
def test_a_containers_quota_counts(tmp_path, monkeypatch, groups, files, cores):
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    if groups is not None:
        (tmp_path / "self").write_text(groups)
    monkeypatch.setattr(process, "PROC", tmp_path / "self")
    monkeypatch.setattr(process, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert available_cores() == cores


def test_sessions_take_the_cores_of_the_process(folder, monkeypatch):
    seen = []
    real = onnxruntime.InferenceSession

    def made(graph, options, **others):
        seen.append(options.intra_op_num_threads)
        return real(graph, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", made)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5}, raising=False)
    for settings in (SessionSettings("cpu"), SessionSettings("cpu", num_threads=3)):
        OnnxGraph(folder / "condition.onnx", settings).close()
    assert seen == [1, 3]


@pytest.mark.parametrize("threads", [0, -1, 1025, 1_000_000, 2.0, True, "4"])
def test_a_number_of_threads_that_no_machine_has_is_refused(folder, threads):
    with pytest.raises(ConfigError, match="num_threads must be"):
        DDIMOptimizer.from_bundle(folder, num_threads=threads)


# What is sent.

PLAN = """
import sys
sys.path[:] = {path!r}
from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
import numpy as np
optimizer = DDIMOptimizer.from_bundle({folder!r}, num_inference_steps=2)
optimizer.optimize(PlanningProblem({{"goal": np.zeros((1, 2, 3), np.float32)}}))
"""
TELLS = ("TELEMETRY", "CACHE", "CI", "BUILD", "GITHUB", "PYTEST", "TF_", "JENKINS")


def plan_at_home(folder, home, *before, **extra):
    """Plan in a process whose home is an empty folder, and nothing says it is a test."""
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if not any(word in k for word in TELLS)}
    code = PLAN.format(path=sys.path, folder=str(folder))
    return subprocess.run(
        [*before, sys.executable, "-B", "-c", code],
        env={**kept, "HOME": str(home), **extra},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def test_planning_leaves_nothing_at_home(folder, tmp_path):
    done = plan_at_home(folder, tmp_path / "home")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list((tmp_path / "home").rglob("*")) == []


def test_a_users_own_choice_stays(folder, tmp_path):
    done = plan_at_home(folder, tmp_path / "home", ORT_DISABLE_TELEMETRY="0")
    assert done.returncode == 0, done.stderr
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 29):
        assert list((tmp_path / "home").rglob("*")) != []  # so the test above can fail


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_planning_asks_nobody(folder, tmp_path):
    trace = tmp_path / "trace"
    done = plan_at_home(
        folder, tmp_path / "home", "strace", "-f", "-e", "trace=network", "-o", str(trace)
    )
    assert done.returncode == 0, done.stderr
    assert "AF_INET" not in trace.read_text()


def test_only_one_file_of_all_packages_imports_onnxruntime():
    """The one that switches off the reports before."""
    root = process.Path(process.__file__).parent.parent
    sources = [
        path
        for part in ("vj2_ddim_plugin", "training", "export", "benchmark")
        for path in (root / part).rglob("*.py")
    ]
    importers = [p.name for p in sources if "import onnxruntime" in p.read_text().split("\n")]
    assert importers == ["session.py"]
