"""Low-temperature sampling: DDIM on Gaussian data is linear in its starting noise."""

from dataclasses import replace

import numpy as np
import pytest
from builders.runtime import FREE, SCHEDULE

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.testing import GaussianModel

WIDE = replace(FREE, action_low=(-9.0, -9.0), action_high=(9.0, 9.0))


def sample(temperature, seed=1, **settings):
    model = GaussianModel(WIDE, SCHEDULE, 0.1, 0.05)
    optimizer = DDIMOptimizer(model, num_inference_steps=10, temperature=temperature, **settings)
    return optimizer.optimize(PlanningProblem({}, batch_size=2, seed=seed)).actions


def test_a_sample_lies_as_far_from_the_coldest_as_the_temperature_says():
    coldest, warm = sample(0.0), sample(1.0)
    assert np.abs(warm - coldest).max() > 0.1
    for temperature in (0.25, 0.5, 0.75):
        expected = coldest + temperature * (warm - coldest)
        np.testing.assert_allclose(sample(temperature), expected, atol=1e-5)


def test_the_coldest_sample_is_the_mean_whatever_the_seed():
    np.testing.assert_array_equal(sample(0.0, seed=1), sample(0.0, seed=2))
    np.testing.assert_allclose(sample(0.0), 9.0 * 0.1, atol=0.05)  # normalized means, in +-9


@pytest.mark.parametrize("temperature", [-0.1, 1.1, float("nan")])
def test_temperatures_out_of_range_are_refused(temperature):
    with pytest.raises(ConfigError, match=r"temperature must be at least 0 and at most 1"):
        sample(temperature)
