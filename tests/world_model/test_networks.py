"""The networks: encoder and predictor, what they see of screen and touch, what they refuse."""

import numpy as np
import pytest
import torch
from builders.world_model import toy_predictor
from scipy.ndimage import map_coordinates

from vj2_ddim_benchmark.world_model.networks import (
    Glimpse,
    PatchEncoder,
    press_knots,
    sample_windows,
)
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError, DataError


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


def test_an_untrained_predictor_predicts_no_change():
    fresh = toy_predictor(token_dim=6, action_block=40, width=8)
    z = torch.randn(2, 1, 4, 6)
    torch.testing.assert_close(fresh(z, torch.rand(2, 1, 40, 3)), z)


def test_several_steps_are_each_step_alone_whatever_the_shape_of_actions(predictor):
    z, actions = torch.randn(3, 4, 16, 6), torch.rand(3, 4, 40, 3)
    together = predictor(z, actions)
    assert together.shape == z.shape
    torch.testing.assert_close(predictor(z, actions.reshape(3, 4, 120)), together)
    for step in range(4):
        alone = predictor(z[:, step : step + 1], actions[:, step : step + 1])
        torch.testing.assert_close(alone, together[:, step : step + 1], atol=1e-5, rtol=1e-5)


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


def test_a_faint_touch_approaches_no_touch(predictor):
    z = torch.randn(1, 1, 16, 6)
    faint = gesture((0.2, 0.4), (0.2, 0.4), 5, 20)[None, None]
    faint[..., 2] *= 1e-5
    untouched = predictor(z, torch.zeros_like(faint))
    torch.testing.assert_close(predictor(z, faint), untouched, atol=1e-2, rtol=0)


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
    glimpse.see_colours(encoder)
    with torch.no_grad():
        cells = glimpse.unfold(torch.from_numpy(encoder.encode(frames))).numpy()
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


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    patches = 128 + 8 * rng.normal(size=(40 * 16, 12)) @ mixing
    patches = np.clip(patches, 0, 255).astype(np.uint8)
    grid = patches.reshape(40, 4, 4, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(grid.reshape(40, 8, 8, 3))


@pytest.mark.parametrize(("token_dim", "noise_floor"), [(12, 0.0), (5, 0.1)])
def test_tokens_are_white_but_for_the_noise_floor(frames, token_dim, noise_floor):
    how = {"token_dim": token_dim, "noise_floor": noise_floor}
    tokens = PatchEncoder.fit(frames, patch_size=2, **how).encode(frames).reshape(-1, token_dim)
    patches = frames.reshape(40, 4, 2, 4, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 12) / 255
    variances = np.linalg.eigvalsh(np.cov(patches.T, bias=True))[::-1]
    expected = variances[:token_dim] / (variances[:token_dim] + noise_floor * variances[0])
    np.testing.assert_allclose(tokens.mean(axis=0, dtype=float), 0, atol=1e-4)
    covariance = np.cov(tokens.T.astype(float), bias=True)
    np.testing.assert_allclose(covariance, np.diag(expected), atol=1e-3)


def test_a_token_sees_its_own_patch_only_row_by_row(frames):
    encoder = PatchEncoder.fit(frames, patch_size=2, token_dim=6)
    changed = frames[:1].copy()
    changed[0, 2:4, 4:6] ^= 255  # row 1, column 2 of the 4 x 4 patches
    difference = np.abs(encoder.encode(changed) - encoder.encode(frames[:1])).max(axis=-1)[0]
    assert np.flatnonzero(difference > 1e-6).tolist() == [1 * 4 + 2]


def test_numpy_and_torch_paths_agree_and_keep_leading_axes(frames):
    encoder = PatchEncoder.fit(frames, patch_size=2, token_dim=6)
    pairs = frames.reshape(20, 2, 8, 8, 3)
    latents = encoder.encode(pairs)
    assert latents.shape == (20, 2, 16, 6)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, encoder(torch.from_numpy(pairs)).numpy(), atol=1e-6)


def test_layer_norm_makes_each_token_standard_and_constant_frames_give_finite_ones(frames):
    tokens = PatchEncoder.fit(frames, patch_size=2, token_dim=12, layer_norm=True).encode(frames)
    np.testing.assert_allclose(tokens.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(tokens.std(axis=-1), 1, atol=1e-2)
    frames = np.full((3, 8, 8, 3), 77, np.uint8)
    assert np.isfinite(PatchEncoder.fit(frames, patch_size=2, token_dim=4).encode(frames)).all()


def test_frames_and_token_dims_that_do_not_fit_are_refused(frames):
    for shape in ((2, 8, 8), (0, 8, 8, 3), (2, 9, 8, 3)):
        with pytest.raises(DataError, match="frames"):
            PatchEncoder.fit(np.zeros(shape, np.uint8), patch_size=2, token_dim=4)
    with pytest.raises(DataError, match="frames"):
        PatchEncoder.fit(np.zeros((2, 8, 8, 3)), patch_size=2, token_dim=4)
    for token_dim in (0, 13):
        with pytest.raises(ConfigError, match="token_dim"):
            PatchEncoder.fit(frames, patch_size=2, token_dim=token_dim)
