"""The frozen encoder: whitening, layer normalisation, and what it refuses."""

import numpy as np
import pytest
import torch

from vj2_ddim_benchmark.world_model.encoder import PatchEncoder
from vj2_ddim_plugin.errors import ConfigError, DataError


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    patches = 128 + 8 * rng.normal(size=(40 * 16, 12)) @ mixing
    patches = np.clip(patches, 0, 255).astype(np.uint8)
    grid = patches.reshape(40, 4, 4, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(grid.reshape(40, 8, 8, 3))


def test_without_noise_floor_the_training_tokens_are_white(frames):
    encoder = PatchEncoder.fit(frames, patch_size=2, token_dim=12, noise_floor=0.0)
    tokens = encoder.encode(frames).reshape(-1, 12).astype(np.float64)
    np.testing.assert_allclose(tokens.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(tokens.T, bias=True), np.eye(12), atol=1e-3)


def test_the_noise_floor_shrinks_each_variance_as_its_formula_says(frames):
    encoder = PatchEncoder.fit(frames, patch_size=2, token_dim=5, noise_floor=0.1)
    tokens = encoder.encode(frames).reshape(-1, 5).astype(np.float64)
    patches = frames.reshape(40, 4, 2, 4, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 12) / 255
    variances = np.linalg.eigvalsh(np.cov(patches.T, bias=True))[::-1]
    expected = variances[:5] / (variances[:5] + 0.1 * variances[0])
    np.testing.assert_allclose(np.cov(tokens.T, bias=True), np.diag(expected), atol=1e-3)


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


def test_layer_norm_makes_each_token_standard(frames):
    encoder = PatchEncoder.fit(frames, patch_size=2, token_dim=12, layer_norm=True)
    tokens = encoder.encode(frames)
    np.testing.assert_allclose(tokens.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(tokens.std(axis=-1), 1, atol=1e-2)


def test_constant_frames_give_finite_tokens():
    frames = np.full((3, 8, 8, 3), 77, np.uint8)
    assert np.isfinite(PatchEncoder.fit(frames, patch_size=2, token_dim=4).encode(frames)).all()


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3)),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 9, 8, 3), np.uint8),
    ],
)
def test_frames_that_do_not_fit_are_refused(frames):
    with pytest.raises(DataError, match="frames"):
        PatchEncoder.fit(frames, patch_size=2, token_dim=4)


@pytest.mark.parametrize("token_dim", [0, 13])
def test_token_dim_out_of_range_is_refused(frames, token_dim):
    with pytest.raises(ConfigError, match="token_dim"):
        PatchEncoder.fit(frames, patch_size=2, token_dim=token_dim)
