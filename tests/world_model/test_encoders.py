"""The encoders: whitened features of patches, of pixels and of a text detector made here."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.detector import CHANNELS, write_detector
from builders.world_model import TINY

from vj2_ddim_benchmark.world_model import text_detector
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoders import (
    PatchEncoder,
    TextDetectorEncoder,
    encoder_of,
    fitted_encoder,
)
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.text_detector import MEAN, STD, installed_detector
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
    pairs.flags.writeable = False  # as a decoded picture is; torch would warn, once a process
    np.testing.assert_array_equal(encoder.encode(pairs), latents)


def test_moved_latents_are_those_of_moved_pictures(frames):
    encoder = PatchEncoder.fit(frames, patch_size=2, token_dim=6)
    offsets = np.array([[0, 0], [1, -2], [-8, 3]])
    for (right, down), latents in zip(
        offsets, encoder.encode_moved(frames[:5], offsets), strict=True
    ):
        columns, rows = (np.clip(np.arange(8) - by, 0, 7) for by in (right, down))
        moved = frames[:5][:, rows][:, :, columns]
        np.testing.assert_allclose(latents, encoder.encode(moved), atol=1e-5)


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


@pytest.fixture
def detector(tmp_path, monkeypatch):
    """A detector whose cells are the mean red and blue of 8 x 8 pixels, as if it were installed."""
    path = write_detector(tmp_path / "detector.onnx")
    monkeypatch.setattr(text_detector, "installed_graph", lambda: path)
    monkeypatch.setattr(TextDetectorEncoder, "num_channels", CHANNELS)
    installed_detector.cache_clear()
    yield
    installed_detector.cache_clear()


def test_tokens_of_a_detector_are_its_whitened_cells(detector):
    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 32, 3), np.uint8)
    config = WorldModelConfig(encoder="text-detector", screen_size=64, patch_size=16, token_dim=8)
    encoder = fitted_encoder(config, frames)
    tokens = encoder.encode(frames)
    assert tokens.shape == (20, 4 * 2, 8)
    seen = ((frames / 255.0 - MEAN) / STD)[..., [0, 2]]
    cells = seen.reshape(20, 4, 2, 8, 2, 2, 8, 2).mean(axis=(3, 6)).transpose(0, 1, 3, 2, 4, 5)
    features = cells.reshape(-1, 8)
    variances, basis = np.linalg.eigh(np.cov(features.T, bias=True))
    scaled = (
        (features - features.mean(axis=0))
        @ basis
        / np.sqrt(variances + config.noise_floor * variances.max())
    )
    order = variances.argsort()[::-1]
    found = tokens.reshape(-1, 8)
    signs = np.sign((found * scaled[:, order]).sum(axis=0))
    np.testing.assert_allclose(found, scaled[:, order] * signs, atol=1e-3)
    again = encoder_of(config, encoder.state_dict())
    np.testing.assert_array_equal(again.encode(frames), tokens)


def test_a_detector_needs_patches_of_whole_cells_and_frames_of_whole_patches(detector):
    with pytest.raises(ConfigError, match="patch_size must be a multiple of 8"):
        WorldModelConfig(encoder="text-detector", screen_size=64, patch_size=4)
    with pytest.raises(DataError, match="do not divide into patches of 16"):
        TextDetectorEncoder.fit(np.zeros((2, 40, 40, 3), np.uint8), patch_size=16, token_dim=2)


def test_a_world_model_is_read_without_the_detector_but_sees_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(text_detector, "installed_graph", lambda: None)
    installed_detector.cache_clear()
    config = replace(TINY, encoder="text-detector", screen_size=32, patch_size=8)
    arrays = {"mean": torch.zeros(96), "projection": torch.ones(96, 8)}
    WorldModel(config, encoder_of(config, arrays)).save(tmp_path / "w.pt")
    model = WorldModel.load(tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"is not installed\. Install it by: pip install"):
        model.encode(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_configuration_from_before_encoders_had_names_sees_patches():
    values = TINY.to_dict()
    assert "encoder" not in values
    assert WorldModelConfig.from_dict(values).encoder == "patches"
    assert torch.equal(
        encoder_of(TINY, {"mean": torch.zeros(192), "projection": torch.ones(192, 8)}).mean,
        torch.zeros(192),
    )
