"""The predictor: what it sees of screen and touch, what it refuses."""

import numpy as np
import pytest
import torch
from builders.world_model import toy_predictor
from scipy.ndimage import map_coordinates

from vj2_ddim_benchmark.world_model.encoders import PatchEncoder
from vj2_ddim_benchmark.world_model.networks import Glimpse, press_knots, sample_windows
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError


def gesture(start, end, first, count, length=40):
    actions = torch.zeros(length, 3)
    actions[first : first + count, 0] = torch.linspace(start[0], end[0], count)
    actions[first : first + count, 1] = torch.linspace(start[1], end[1], count)
    actions[first : first + count, 2] = 1
    return actions


@pytest.fixture
def predictor():
    made = toy_predictor(screen_size=32, token_dim=6, action_block=40, num_layers=2)
    torch.nn.init.normal_(made.write.weight)
    return made.eval()


def test_knots_of_a_tap_are_where_it_was_whenever_it_was_and_without_one_finite():
    early = gesture((0.3, 0.8), (0.3, 0.8), 0, 5)
    late = gesture((0.3, 0.8), (0.3, 0.8), 31, 9)
    positions, steps = press_knots(torch.stack([early, late]), 5)
    expected = torch.tensor([0.3, 0.8]).expand(2, 5, 2)
    torch.testing.assert_close(positions, expected, atol=2e-3, rtol=0)
    assert steps.tolist() == [5, 9]
    actions = torch.zeros(2, 40, 3, requires_grad=True)
    positions, steps = press_knots(actions, 4)
    (positions.sum() + steps.sum()).backward()
    assert steps.tolist() == [0, 0]
    assert torch.isfinite(positions).all()
    assert torch.isfinite(actions.grad).all()


def test_knots_of_a_line_are_even_and_in_order():
    positions, _ = press_knots(gesture((0.1, 0.9), (0.9, 0.1), 3, 33), 5)
    x, y = positions.T.numpy()
    np.testing.assert_allclose(x[1:4], [0.3, 0.5, 0.7], atol=0.01)
    np.testing.assert_allclose(x + y, 1, atol=0.01)
    assert 0.1 < x[0] < 0.2  # the mean over the first half interval
    assert 0.8 < x[4] < 0.9


def test_several_steps_are_each_step_alone_whatever_the_shape_of_actions(predictor):
    z, actions = torch.randn(3, 4, 16, 6), torch.rand(3, 4, 40, 3)
    together = predictor(z, actions)
    assert together.shape == z.shape
    faint = actions * torch.tensor([1.0, 1.0, 1e-6])  # approaches no touch
    untouched = predictor(z, torch.zeros_like(faint))
    torch.testing.assert_close(predictor(z, faint), untouched, atol=1e-2, rtol=0)
    torch.testing.assert_close(predictor(z, actions.reshape(3, 4, 120)), together)
    for step in range(4):
        alone = predictor(z[:, step : step + 1], actions[:, step : step + 1])
        torch.testing.assert_close(alone, together[:, step : step + 1], atol=1e-5, rtol=1e-5)
    fresh = toy_predictor(token_dim=6, action_block=40, width=8)  # untrained: no change
    z = torch.randn(2, 1, 4, 6)
    torch.testing.assert_close(fresh(z, torch.rand(2, 1, 40, 3)), z)


def test_gradients_reach_x_y_and_press_and_match_finite_differences(predictor):
    predictor = predictor.double()
    z = torch.randn(1, 1, 16, 6, dtype=torch.float64)
    actions = gesture((0.2, 0.4), (0.6, 0.5), 5, 20).double()[None, None]
    actions[..., 2] *= 0.7  # away from the bounds of the press
    actions.requires_grad_()
    weight = torch.randn(16, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((predictor(z, actions) * weight).sum(), actions)
    for channel in range(3):
        shift = torch.zeros_like(actions)
        shift[0, 0, 12, channel] = 1e-6
        with torch.no_grad():
            ahead, behind = predictor(z, actions + shift), predictor(z, actions - shift)
        slope = float(((ahead - behind) * weight).sum() / 2e-6)
        assert slope != 0
        assert float(gradient[0, 0, 12, channel]) == pytest.approx(slope, rel=1e-4)


def test_shapes_and_sizes_that_cannot_work_are_refused(predictor):
    for shape in ((2, 1, 16, 5), (2, 1, 9, 6), (2, 16, 6)):
        with pytest.raises(ContextError, match=r"\[B, T, 16, 6\]"):
            predictor(torch.zeros(shape), torch.zeros(2, 1, 40, 3))
    for shape in ((2, 1, 41, 3), (2, 1, 119), (1, 1, 40, 3), (2, 2, 40, 3)):
        with pytest.raises(ActionError, match="actions"):
            predictor(torch.zeros(2, 1, 16, 6), torch.zeros(shape))
    with pytest.raises(ConfigError, match="patch_size"):  # so that the tokens are a square
        toy_predictor(screen_size=15)
    with pytest.raises(ConfigError, match="num_heads"):
        toy_predictor(width=10, num_heads=4)


def test_windows_are_bilinear_samples_around_each_position():
    rng = np.random.default_rng(0)
    maps, positions = rng.random((3, 2, 8, 8)), rng.random((3, 4, 2))
    windows = sample_windows(torch.tensor(maps), torch.tensor(positions), 5).numpy()
    shifts = np.arange(-2, 3)
    for row, knot, channel in np.ndindex(3, 4, 2):
        x, y = positions[row, knot] * 8 - 0.5  # cell i is centred on i + 0.5
        points = np.meshgrid(y + shifts, x + shifts, indexing="ij")
        expected = map_coordinates(maps[row, channel], points, order=1, mode="grid-constant")
        np.testing.assert_allclose(windows[row, knot, channel], expected, atol=1e-12)


def test_cells_begin_as_the_colours_that_were_encoded():
    rng = np.random.default_rng(1)
    squares = rng.integers(0, 256, (30, 8, 8, 3), np.uint8)
    frames = squares.repeat(2, axis=1).repeat(2, axis=2)  # 2 x 2 patches of 4 x 4 cells
    encoder = PatchEncoder.fit(frames, patch_size=8, token_dim=48, noise_floor=0.3)
    glimpse = Glimpse(2, 48, 8, num_positions=1)
    latents = torch.from_numpy(encoder.encode(frames))
    glimpse.see_colours(latents, torch.from_numpy(frames))
    with torch.no_grad():
        cells = glimpse.unfold(latents).numpy()
    expected = squares.reshape(30, 2, 4, 2, 4, 3).transpose(0, 1, 3, 5, 2, 4) / 255
    np.testing.assert_allclose(cells, expected.reshape(30, 4, 48), atol=1e-3)


def test_what_is_under_the_finger_counts_and_not_where_the_finger_is():
    torch.manual_seed(0)
    glimpse = Glimpse(4, 6, 8, num_positions=1).double()
    screen = torch.randn(6, dtype=torch.float64).expand(1, 16, 6).clone()
    here = torch.tensor([[[0.40, 0.55]]], dtype=torch.float64)
    one_patch_right = here + torch.tensor([0.25, 0.0], dtype=torch.float64)
    torch.testing.assert_close(glimpse(screen, here), glimpse(screen, one_patch_right))

    # All tokens hear of the patch under the finger, and of the upper right corner only its own.
    for token, hearing in ((2 * 4 + 1, list(range(16))), (3, [3])):
        touched = screen.clone()
        touched[0, token] += 1
        changes = (glimpse(touched, here) - glimpse(screen, here)).abs().amax(dim=-1)[0]
        assert (changes > 1e-6).nonzero().flatten().tolist() == hearing
