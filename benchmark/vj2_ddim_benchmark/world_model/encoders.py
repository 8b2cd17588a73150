"""Frozen encoders in V-JEPA 2's place: the whitened features of each square patch of a picture."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.world_model.config import DETECTOR_STRIDE, WorldModelConfig
from vj2_ddim_benchmark.world_model.text_detector import NUM_CHANNELS, installed_detector
from vj2_ddim_plugin.errors import ConfigError, DataError


class Encoder(nn.Module):
    """Frames `[..., H, W, 3]` to latents `[..., N, D]`, one token for each square patch."""

    mean: Tensor  # [F], of the features
    projection: Tensor  # [F, D], which whitens
    frames_at_once: ClassVar[Any] = 512  # bounds the memory
    cell: ClassVar[int] = 1  # pixels across what has features of its own

    def __init__(
        self, mean: Tensor, projection: Tensor, *, patch_size: int, layer_norm: bool
    ) -> None:
        super().__init__()
        length = self.num_features(patch_size)
        if mean.shape != (length,) or projection.shape[:-1] != (length,):
            raise ConfigError(
                f"an encoder of {patch_size} pixel patches needs mean [{length}] and projection "
                f"[{length}, D]; found {list(mean.shape)} and {list(projection.shape)}"
            )
        self.patch_size, self.layer_norm = patch_size, layer_norm
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("projection", projection.to(torch.float32))

    @classmethod
    def num_features(cls, patch_size: int) -> int:
        """F, the features of one patch."""
        raise NotImplementedError

    @classmethod
    def cells(cls, frames: Tensor) -> Tensor:
        """Frames uint8 `[n, H, W, 3]` to what is told of each cell, `[n, H/cell, W/cell, C]`."""
        raise NotImplementedError

    @classmethod
    def features(cls, frames: Tensor, patch_size: int) -> Tensor:
        """Frames uint8 `[n, H, W, 3]` to features float32 `[n, N, F]`, patches row by row."""
        _require_divides(frames, patch_size)
        return patches_of(cls.cells(frames), patch_size // cls.cell)

    @classmethod
    def fit(
        cls, frames: NDArray[np.uint8], *, patch_size: int = 8, token_dim: int = 32,
        noise_floor: float = 0.01, layer_norm: bool = False,
    ) -> Self:  # fmt: skip
        """Whiten the features of `frames` along their `token_dim` leading principal components.

        A component of variance v is divided by sqrt(v + noise_floor * v_max), so that directions
        that hold little but noise stay small; with `noise_floor` 0 the covariance of the training
        tokens is the identity.
        """
        length = cls.num_features(patch_size)
        if not 1 <= token_dim <= length:
            raise ConfigError(f"token_dim must be in 1..{length}; found {token_dim}")
        chunks = torch.split(torch.from_numpy(_checked(frames)), cls.frames_at_once)
        mean, covariance = _moments(cls.features(chunk, patch_size) for chunk in chunks)
        variance, basis = torch.linalg.eigh(covariance)
        variance, basis = variance.flip(0)[:token_dim].clamp(min=0), basis.flip(1)[:, :token_dim]
        basis = basis * basis.gather(0, basis.abs().argmax(dim=0)[None]).sign()
        floor = max(noise_floor * float(variance[0]), 1e-12)
        projection = basis / torch.sqrt(variance + floor)
        return cls(mean, projection, patch_size=patch_size, layer_norm=layer_norm)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames uint8 `[n, H, W, 3]` to float32 latents `[n, N, D]`."""
        return self._tokens(self.features(frames, self.patch_size))

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames uint8 `[..., H, W, 3]` to float32 latents `[..., N, D]`, numpy in and out."""
        lead = frames.shape[:-3]
        flat = torch.from_numpy(_checked(frames.reshape(-1, *frames.shape[-3:])))
        chunks = torch.split(flat, self.frames_at_once)
        tokens = [self(chunk.to(self.mean.device)).cpu() for chunk in chunks]
        latents: NDArray[np.float32] = torch.cat(tokens).numpy()
        return latents.reshape(*lead, *latents.shape[1:])

    @torch.inference_mode()
    def encode_moved(
        self, frames: NDArray[np.uint8], offsets: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Frames `[n, H, W, 3]` moved by offsets `[m, 2]`, to the right and down, in cells.

        What was at the edge fills what is uncovered. Returns latents `[m, n, N, D]`; a picture is
        seen once, however often it is moved.
        """
        seen = torch.from_numpy(_checked(frames)).to(self.mean.device)
        _require_divides(seen, self.patch_size)
        cells, side = self.cells(seen), self.patch_size // self.cell
        moved = [patches_of(moved_by(cells, *offset), side) for offset in offsets.tolist()]
        latents: NDArray[np.float32] = self._tokens(torch.stack(moved)).cpu().numpy()
        return latents

    def _tokens(self, features: Tensor) -> Tensor:
        tokens = (features - self.mean) @ self.projection
        return functional.layer_norm(tokens, tokens.shape[-1:]) if self.layer_norm else tokens


class PatchEncoder(Encoder):
    """Its features are the pixels themselves, in [0, 1]."""

    @classmethod
    def num_features(cls, patch_size: int) -> int:
        """Three colours of every pixel."""
        return patch_size**2 * 3

    @classmethod
    def cells(cls, frames: Tensor) -> Tensor:
        """The colours of each pixel."""
        return frames.to(torch.float32) / 255


class TextDetectorEncoder(Encoder):
    """Its features are those of a text detector that others trained: a cell every 8 pixels.

    A little of what changes anywhere is in every token: the detector averages over the picture.
    """

    frames_at_once, cell = 16, DETECTOR_STRIDE
    num_channels = NUM_CHANNELS

    @classmethod
    def num_features(cls, patch_size: int) -> int:
        """The channels of every cell."""
        return cls.num_channels * (patch_size // DETECTOR_STRIDE) ** 2

    @classmethod
    def cells(cls, frames: Tensor) -> Tensor:
        """The detector's channels."""
        found = installed_detector().see(frames.cpu().numpy())
        return torch.from_numpy(found).to(frames.device)


ENCODERS: Mapping[str, type[Encoder]] = {
    "patches": PatchEncoder,
    "text-detector": TextDetectorEncoder,
}


def encoder_of(config: WorldModelConfig, arrays: Mapping[str, Tensor]) -> Encoder:
    """The encoder that a configuration names, with its `mean` and `projection`."""
    kind = ENCODERS[config.encoder]
    how: dict[str, Any] = {"patch_size": config.patch_size, "layer_norm": config.layer_norm}
    return kind(arrays["mean"], arrays["projection"], **how)


def fitted_encoder(config: WorldModelConfig, frames: NDArray[np.uint8]) -> Encoder:
    """The encoder that a configuration names, fitted to frames `[n, H, W, 3]`."""
    names = ("patch_size", "token_dim", "noise_floor", "layer_norm")
    return ENCODERS[config.encoder].fit(frames, **{name: getattr(config, name) for name in names})


def _moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean `[F]` and covariance `[F, F]` of features `[n, N, F]`, summed in float64."""
    origin: Tensor | None = None
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        rows = part.flatten(0, 1).double()
        origin = rows.mean(dim=0) if origin is None else origin  # near the mean: nothing cancels
        rows = rows - origin
        count, total, squares = count + len(rows), total + rows.sum(dim=0), squares + rows.T @ rows
    assert origin is not None  # there is at least one frame
    mean = total / count
    return origin + mean, squares / count - torch.outer(mean, mean)


def _checked(frames: NDArray[Any]) -> NDArray[np.uint8]:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise DataError(
            f"frames must be uint8 [n, H, W, 3] with n at least 1; found {frames.dtype} "
            f"{list(frames.shape)}"
        )
    return np.require(frames, requirements=["C", "W"])  # torch warns of what is read-only


def _require_divides(frames: Tensor, patch_size: int) -> None:
    height, width = frames.shape[-3:-1]
    if height % patch_size or width % patch_size:
        raise DataError(
            f"frames of {height} x {width} pixels do not divide into patches of {patch_size}; "
            f"use another patch_size or screen size"
        )


def moved_by(grid: Tensor, right: int, down: int) -> Tensor:
    """`[..., H, W, C]` moved by so many places; its edge is repeated where it uncovers some."""
    height, width = grid.shape[-3:-1]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    return grid[..., rows[:, None], columns, :]


def patches_of(grid: Tensor, side: int) -> Tensor:
    """`[..., H, W, C]` to `[..., N, side * side * C]`, row by row."""
    *lead, height, width, channels = grid.shape
    rows, columns = height // side, width // side
    cut = grid.reshape(*lead, rows, side, columns, side, channels)
    return cut.transpose(-4, -3).reshape(*lead, rows * columns, -1)
