"""The runtime needs numpy and ONNX Runtime, and nothing else; shown in a fresh interpreter."""

import pytest
from builders.runtime import HOOK, run

EVERY_MODULE = """
import importlib, pkgutil
import vj2_ddim_plugin
needs_the_cli_extra = {"commands"}
names = [module.name for module in pkgutil.iter_modules(vj2_ddim_plugin.__path__)]
for name in sorted(set(names) - needs_the_cli_extra):
    importlib.import_module(f"vj2_ddim_plugin.{name}")
print(len(names), *sorted(sys.modules))
"""
PLAN = """
import numpy as np
from vj2_ddim_plugin import ActionSpec, DDIMOptimizer, NoiseSchedule, PlanningProblem
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost
spec = ActionSpec(action_block=20, min_press_steps=5, max_press_steps=10)
model = GaussianModel(spec, NoiseSchedule())
cost = QuadraticCost(np.full((20, 3), 0.5))
result = DDIMOptimizer(model, num_refinements=1).optimize(PlanningProblem(cost=cost))
assert is_valid(result.actions, spec).all()
"""


def test_every_module_of_the_runtime_imports_numpy_and_onnxruntime_alone():
    done = run(HOOK + EVERY_MODULE)
    assert done.returncode == 0, done.stderr
    count, *loaded = done.stdout.split()
    assert int(count) >= 15
    assert "vj2_ddim_plugin.optimizer" in loaded
    for name in ("torch", "onnx", "onnxscript", "typer", "rich", "matplotlib", "scipy", "h5py"):
        assert name not in loaded, f"the runtime loads {name}"
    for name in ("vj2_ddim_training", "vj2_ddim_export", "vj2_ddim_benchmark"):
        assert name not in loaded, f"the runtime loads {name}"


def test_a_plan_needs_nothing_more():
    done = run(HOOK + PLAN)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")  # and it prints nothing


@pytest.mark.parametrize("name", ["torch", "onnx", "typer", "matplotlib", "vj2_ddim_training"])
def test_the_check_can_fail(name):
    done = run(HOOK + f"import {name}")
    assert done.returncode == 1
    assert f"asked for {name}" in done.stderr


def test_the_check_sees_through_the_runtimes_own_modules():
    # a runtime module that asks for torch, as a careless edit would make one
    careless = "exec('import torch', {'__name__': 'vj2_ddim_plugin.careless'})"
    done = run(HOOK + careless)
    assert "vj2_ddim_plugin asked for torch" in done.stderr
    lazily = "exec('import importlib; importlib.import_module(\"colorsys\")', {'__name__': 'x'})"
    assert run(HOOK + lazily).returncode == 0
