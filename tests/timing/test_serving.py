"""What `vj2-ddim benchmark serving` counts, where the answer is known. No timing is asserted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builders.serving import http_server, shipped

from vj2_ddim_benchmark.settings import ServingSettings
from vj2_ddim_benchmark.timing import random_problem, serving
from vj2_ddim_plugin import DDIMOptimizer
from vj2_ddim_plugin.errors import ServingError
from vj2_ddim_plugin.remote import RemoteOptimizer

RECORDED = Path(__file__).parents[2] / "benchmark" / "results" / "serving_killed.json"
SETTINGS = ServingSettings(num_plans=10, num_clients=4, num_turns=2, plans=12)


@pytest.fixture(scope="module")
def remote():
    with http_server() as server, RemoteOptimizer.connect(server.address) as connected:
        yield connected


def test_served_plans_are_timed_beside_local_ones(remote):
    problems = [random_problem(shipped(), seed) for seed in range(3)]
    latency = serving.measure_latency(DDIMOptimizer(shipped()), remote, problems, 4)
    assert min(latency["local_p50_ms"], latency["served_p50_ms"]) > 0.0
    many = serving.measure_throughput(remote, problems, SETTINGS)
    assert many["num_clients"] == 4
    assert min(many["one_client_per_s"], many["ratio"]) > 0.0


def test_lost_and_wrong_plans_are_counted(remote):
    problems = [random_problem(shipped(), seed) for seed in range(4)]
    plans = [remote.optimize(problem).actions for problem in problems]
    right = serving.count_wrong(remote, problems, plans, SETTINGS)
    assert (right["lost"], right["wrong"], right["num_plans"]) == (0, 0, 12)

    class Careless:
        def optimize(self, problem):
            if problem.seed == 1:
                raise ServingError("gone", 503)
            return remote.optimize(problem)

    plans[2] = np.nextafter(plans[2], np.float32(2.0))
    found = serving.count_wrong(Careless(), problems, plans, SETTINGS)
    assert (found["lost"], found["wrong"]) == (3, 3)


def test_the_one_that_is_named_is_killed_again_and_again():
    sleepers = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) for _ in range(2)]
    alive = list(sleepers)
    with serving._killing(lambda: alive.pop().pid, 0.05) as killed:
        while len(killed) < 2:
            time.sleep(0.01)
        alive.append(sleepers[0])
    for each in sleepers:
        assert each.wait() == -signal.SIGKILL
        each.stdin.close()
    assert set(killed) == {each.pid for each in sleepers}
    assert os.getpid() not in killed


def test_the_recorded_figures_lost_nothing():
    recorded = json.loads(RECORDED.read_text())
    assert recorded["killed"]["num_plans"] >= 10_000
    assert (recorded["killed"]["lost"], recorded["killed"]["wrong"]) == (0, 0)
    assert recorded["killed"]["replicas_killed"] > 0
