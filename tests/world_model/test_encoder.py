"""The frozen encoder: whitening, layer normalisation, and what it refuses."""

import numpy as np
import pytest
import torch

from vj2_ddim_benchmark.world_model.networks import PatchEncoder
from vj2_ddim_plugin.errors import ConfigError, DataError


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
