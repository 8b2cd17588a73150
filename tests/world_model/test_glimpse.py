import numpy as np
import torch
from scipy.ndimage import map_coordinates

from vj2_ddim_benchmark.world_model.encoder import PatchEncoder
from vj2_ddim_benchmark.world_model.predictor import Glimpse, sample_windows


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

    touched = screen.clone()
    touched[0, 2 * 4 + 1] += 1  # the patch under the finger: every token hears of it
    changes = (glimpse(touched, here) - glimpse(screen, here)).abs().amax(dim=-1)[0]
    assert (changes > 1e-6).all()

    elsewhere = screen.clone()
    elsewhere[0, 3] += 1  # the upper right corner, out of the window: only that token does
    changes = (glimpse(elsewhere, here) - glimpse(screen, here)).abs().amax(dim=-1)[0]
    assert (changes > 1e-6).nonzero().flatten().tolist() == [3]
