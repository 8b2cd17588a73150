"""Settings of planners that cannot work are refused by name, before anything is planned."""

import pytest

from vj2_ddim_benchmark.amortised import AmortisedConfig
from vj2_ddim_benchmark.planners.amortised import Sampling
from vj2_ddim_benchmark.planners.cross_entropy import CEM, ICEM, CandidateCEMSettings, GestureCEM
from vj2_ddim_benchmark.planners.gradient_descent import GradientDescent
from vj2_ddim_benchmark.planners.population import MPPI, PredictiveSampling, RandomGestures
from vj2_ddim_plugin.errors import ConfigError

NAN = float("nan")
POPULATION = {"num_samples": [0], "num_iterations": [0], "seed": [-1], "start": ["centre"]}
ELITES = {**POPULATION, "num_elites": [0, 97], "std": [0.0, NAN], "smoothing": [1.0]}
FITTED = {**ELITES, "min_std": [-0.1], "covariance": ["spherical"]}
WRONG = {
    CEM: {**FITTED, "num_elites": [0, 33], "num_knots": [1]},
    ICEM: {**FITTED, "num_elites": [0, 49], "noise_beta": [-1.0], "decay": [0.9],
           "keep_share": [1.1, NAN]},
    GestureCEM: {**FITTED, "num_elites": [0, 17]},
    CandidateCEMSettings: {**FITTED, "num_elites": [0]},
    MPPI: {**POPULATION, "temperature": [0.0, NAN], "noise_std": [0.0], "num_knots": [1]},
    PredictiveSampling: {**POPULATION, "noise_std": [0.0, -1.0, NAN]},
    GradientDescent: {"method": ["lbfgs"], "start": ["middle"], "lr": [0.0, NAN],
                      "num_restarts": [0], "num_iterations": [-1], "seed": [-1]},
    RandomGestures: {"num_candidates": [0], "seed": [-1]},
    Sampling: {"num_candidates": [0], "std_scale": [-0.1, NAN], "seed": [-1]},
    AmortisedConfig: {"kind": ["mixture"], "head_width": [0], "condition_layers": [-1]},
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_settings_that_cannot_work_are_refused(kind):
    needed = {"lr": 0.1} if kind is GradientDescent else {}
    for name, values in WRONG[kind].items():
        for value in values:
            with pytest.raises(ConfigError, match=f"^{name} "):
                kind(**{**needed, name: value})
