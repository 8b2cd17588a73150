"""What `latency` and `pressure` measure, where the answer is known. No timing is asserted."""

import json
import mmap
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.bundles import make_bundle
from builders.race import benchmark

from vj2_ddim_benchmark.settings import LatencySettings, PredictorSize
from vj2_ddim_benchmark.timing import latency, pressure
from vj2_ddim_benchmark.timing.latency import measure_latency
from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_training.config import ModelConfig

RECORDED = Path(__file__).parents[2] / "benchmark" / "results" / "pressure.json"


@pytest.fixture
def optimizer(tmp_path):
    make_bundle(tmp_path / "bundle")
    with DDIMOptimizer.from_bundle(tmp_path / "bundle", provider="cpu", num_threads=1) as made:
        yield made


def test_overhead_is_the_whole_over_what_onnxruntime_takes(tmp_path, monkeypatch, optimizer):
    """A host that takes as long again as ONNX Runtime doubles the plan."""
    plain = pressure.measure_overhead(tmp_path / "bundle", 10, 1)
    assert plain["ratio"] > 1.0
    assert plain["plan_ms"] > plain["onnxruntime_ms"] > 0.0
    whole = DDIMOptimizer.optimize

    def slower(self, problem):
        time.sleep(0.05)
        return whole(self, problem)

    monkeypatch.setattr(DDIMOptimizer, "optimize", slower)
    slow = pressure.measure_overhead(tmp_path / "bundle", 10, 1)
    assert slow["plan_ms"] > 50.0
    assert slow["ratio"] > plain["ratio"]


def test_lateness_is_counted_from_the_deadline(monkeypatch, optimizer):
    problem = replace(pressure.random_problem(optimizer.model, 0), cost=pressure.stand_in_cost(0.0))
    now = {"s": 0.0}
    monkeypatch.setattr(pressure.time, "perf_counter", lambda: now["s"])
    plan = optimizer.optimize(problem)

    class Slow:
        action_spec = optimizer.action_spec

        def optimize(self, problem):
            assert isinstance(problem, PlanningProblem)
            now["s"] += problem.deadline_s + 0.007
            return plan

    row = pressure.measure_deadlines(Slow(), [problem] * 4, [0.02], load=0)[0]
    assert row["late_p99_ms"] == pytest.approx(7.0)
    assert row["every_plan_valid"] == bool(is_valid(plan.actions, optimizer.action_spec).all())
    assert row["share_ranked"] == 1.0


def test_growth_of_memory_is_seen(optimizer):
    hoard = []

    class Leaky:
        def optimize(self, problem):
            hoard.append(mmap.mmap(-1, 2**20))  # 1 MB that the heap has not held before
            hoard[-1].write(b"1" * 2**20)

    problem = pressure.random_problem(optimizer.model, 0)
    leak = pressure.measure_memory(Leaky(), problem, 100, settle=50)
    assert 25.0 < leak["growth_mb"] < 75.0  # of 50; other memory may be freed meanwhile
    assert pressure.measure_memory(optimizer, problem, 100, settle=50)["growth_mb"] < 5.0


def test_a_plan_that_differs_between_threads_is_seen(optimizer):
    problems = [pressure.random_problem(optimizer.model, seed) for seed in range(8)]
    assert pressure.measure_concurrency(optimizer, problems, 8)["share_identical"] == 1.0

    class Racy:
        calls = 0

        def optimize(self, problem):
            self.calls += 1
            seed = problem.seed + self.calls // 9  # the second half of the calls differs
            return optimizer.optimize(replace(problem, seed=seed))

    assert pressure.measure_concurrency(Racy(), problems, 8)["share_identical"] < 1.0


def test_the_command_writes_what_it_shows(tmp_path, optimizer, capsys):
    target = tmp_path / "figures.json"
    arguments = ["--num-plans", "10", "--memory-plans", "20", "--load", "0"]
    assert benchmark("pressure", tmp_path / "bundle", *arguments, "--json", target) == 0
    figures, recorded = (json.loads(path.read_text()) for path in (target, RECORDED))
    assert figures.keys() == recorded.keys()
    for measure in ("overhead", "concurrency", "memory"):
        assert figures[measure].keys() == recorded[measure].keys()
    assert figures["deadlines"][0].keys() == recorded["deadlines"][0].keys()
    assert [row["deadline_ms"] for row in figures["deadlines"]] == [20.0, 50.0, 100.0]
    assert figures["concurrency"]["share_identical"] == 1.0
    assert "deadline 20 ms" in capsys.readouterr().out


LATENCY = Path(__file__).parents[2] / "benchmark" / "results" / "latency.json"


def test_both_samplers_are_timed(tmp_path, monkeypatch):
    tiny = {"d_model": 16, "num_layers": 1, "nhead": 2, "condition_layers": 1}  # quickly exported
    monkeypatch.setattr(latency, "ModelConfig", partial(ModelConfig, **tiny))
    monkeypatch.setattr(latency, "PredictorSize", partial(PredictorSize, width=16, num_tokens=40))
    before = torch.get_num_threads()
    try:
        bundle = make_bundle(tmp_path / "bundle", conditional=False)
        settings = LatencySettings(num_plans=3, num_inference_steps=2, threads=1)
        measured = measure_latency(bundle, settings)
    finally:
        torch.set_num_threads(before)
    for name in ("plugin", "original"):
        assert 0 < measured[name]["p50_ms"] <= measured[name]["p95_ms"]
    ratio = measured["original"]["p50_ms"] / measured["plugin"]["p50_ms"]
    np.testing.assert_allclose(measured["ratio_p50"], ratio)
    assert measured["overhead"] >= 1.0
    assert measured["num_plans"] == 3
    assert measured.keys() - {"condition_2x256x1024"} == json.loads(LATENCY.read_text()).keys()
    assert measured["environment"]["torch_threads"] == 1
