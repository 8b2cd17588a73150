import numpy as np
import pytest

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.measures import gaussianity

HELD = ActionSpec(action_block=2, min_press_steps=1, max_press_steps=None, representation="held")
PATH = ActionSpec()


def test_channels_in_time_by_hand():
    x_T = np.zeros((2, 2, 3))
    x_T[..., 0] = [[1, -1], [1, -1]]
    x_T[..., 1] = [[2, 0], [2, 0]]
    x_T[..., 2] = [[0.5, -0.5], [-0.5, 0.5]]
    result = gaussianity(x_T, HELD)
    assert result["mean"] == [0, 1, 0]
    assert result["std"] == [1, 1, 0.5]
    assert (result["worst_abs_mean"], result["lowest_std"], result["highest_std"]) == (1, 0.5, 1)
    assert result["degenerate"] is True


def test_every_row_of_a_path_is_a_channel():
    x_T = np.zeros((2, 6, 1))
    x_T[:, :, 0] = [[1, 2, 3, 4, 5, 6], [-1, -2, -3, -4, -5, -6]]
    result = gaussianity(x_T, PATH)
    assert result["std"] == [1, 2, 3, 4, 5, 6]
    assert result["mean"] == [0] * 6


@pytest.mark.parametrize("spec", [HELD, PATH])
def test_gaussian_noise_is_not_degenerate(spec):
    x_T = np.random.default_rng(0).standard_normal((2000, *spec.diffused_shape))
    assert gaussianity(x_T, spec)["degenerate"] is False


@pytest.mark.parametrize(
    ("mean", "std", "degenerate"),
    [
        (0.09, 1.0, False),
        (0.11, 1.0, True),
        (-0.11, 1.0, True),
        (0.0, 0.81, False),
        (0.0, 0.79, True),
        (0.0, 1.19, False),
        (0.0, 1.21, True),
    ],
)
def test_one_channel_off_the_limits_is_enough(mean, std, degenerate):
    x_T = np.ones((2, 6, 1))
    x_T[1] = -1.0
    x_T[:, 3] = mean + std * x_T[:, 3]
    assert gaussianity(x_T, PATH)["degenerate"] is degenerate


def test_nan_is_degenerate():
    x_T = np.random.default_rng(0).standard_normal((2000, 6, 1))
    x_T[0, 0] = np.nan
    assert gaussianity(x_T, PATH)["degenerate"] is True


def test_wrong_shape_is_refused():
    with pytest.raises(ActionError, match="representation 'path'"):
        gaussianity(np.zeros((3, 250, 3)), PATH)
    with pytest.raises(ActionError, match="expected"):
        gaussianity(np.zeros((0, 6, 1)), PATH)
