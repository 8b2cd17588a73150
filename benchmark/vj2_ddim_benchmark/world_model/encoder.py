"""The frozen encoder: patches of the screen, whitened. It stands where V-JEPA 2 stands in VJ2-GUI.

It is fitted once, by principal component analysis of training frames, and never trained after.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_plugin.errors import ConfigError, DataError

__all__ = ["PatchEncoder"]

FRAMES_PER_CHUNK = 512  # bounds the memory of encoding many frames


class PatchEncoder(nn.Module):
    """Frames `[..., H, W, 3]` to latents `[..., N, D]`, one token for each square patch.

    `fit` makes one. With `layer_norm`, each token is normalised after whitening, as VJ2-GUI does.
    """

    mean: Tensor  # [P], the mean patch, P = patch_size^2 * 3, pixels in [0, 1]
    projection: Tensor  # [P, D], which whitens

    def __init__(
        self, mean: Tensor, projection: Tensor, *, patch_size: int, layer_norm: bool
    ) -> None:
        super().__init__()
        if mean.shape != (patch_size**2 * 3,) or projection.shape[:-1] != mean.shape:
            raise ConfigError(
                f"an encoder of {patch_size} pixel patches needs mean [{patch_size**2 * 3}] and "
                f"projection [{patch_size**2 * 3}, D]; found {list(mean.shape)} and "
                f"{list(projection.shape)}"
            )
        self.patch_size, self.layer_norm = patch_size, layer_norm
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("projection", projection.to(torch.float32))

    @classmethod
    def fit(
        cls,
        frames: NDArray[np.uint8],
        *,
        patch_size: int = 8,
        token_dim: int = 32,
        noise_floor: float = 0.01,
        layer_norm: bool = False,
    ) -> PatchEncoder:
        """Whiten the patches of `frames` along their `token_dim` leading principal components.

        A component of variance v is divided by sqrt(v + noise_floor * v_max), so that directions
        that hold little but noise stay small; with `noise_floor` 0 the covariance of the training
        tokens is the identity.
        """
        length = patch_size**2 * 3
        if not 1 <= token_dim <= length:
            raise ConfigError(f"token_dim must be in 1..{length}; found {token_dim}")
        patches = _patches(torch.from_numpy(_checked(frames)), patch_size)
        patches = patches.reshape(-1, length).to(torch.float64) / 255
        mean = patches.mean(dim=0)
        centred = patches - mean
        variance, basis = torch.linalg.eigh(centred.T @ centred / len(patches))
        variance, basis = variance.flip(0)[:token_dim].clamp(min=0), basis.flip(1)[:, :token_dim]
        basis = basis * basis.gather(0, basis.abs().argmax(dim=0)[None]).sign()
        floor = max(noise_floor * float(variance[0]), 1e-12)
        projection = basis / torch.sqrt(variance + floor)
        return cls(mean, projection, patch_size=patch_size, layer_norm=layer_norm)

    @property
    def token_dim(self) -> int:
        """D, the numbers in one token."""
        return self.projection.shape[1]

    def forward(self, frames: Tensor) -> Tensor:
        """Frames `[..., H, W, 3]` with values 0 to 255 to float32 latents `[..., N, D]`."""
        patches = _patches(frames, self.patch_size).to(torch.float32) / 255
        tokens = (patches - self.mean) @ self.projection
        return functional.layer_norm(tokens, tokens.shape[-1:]) if self.layer_norm else tokens

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames uint8 `[..., H, W, 3]` to float32 latents `[..., N, D]`, numpy in and out."""
        lead = frames.shape[:-3]
        flat = torch.from_numpy(_checked(frames.reshape(-1, *frames.shape[-3:])))
        chunks = torch.split(flat, FRAMES_PER_CHUNK)
        tokens = [self(chunk.to(self.mean.device)).cpu() for chunk in chunks]
        latents: NDArray[np.float32] = torch.cat(tokens).numpy()
        return latents.reshape(*lead, *latents.shape[1:])


def _checked(frames: NDArray[Any]) -> NDArray[np.uint8]:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise DataError(
            f"frames must be uint8 [n, H, W, 3] with n at least 1; found {frames.dtype} "
            f"{list(frames.shape)}"
        )
    return np.ascontiguousarray(frames)


def _patches(frames: Tensor, patch_size: int) -> Tensor:
    """`[..., H, W, 3]` to `[..., N, patch_size * patch_size * 3]`, row by row."""
    *lead, height, width, channels = frames.shape
    if height % patch_size or width % patch_size:
        raise DataError(
            f"frames of {height} x {width} pixels do not divide into patches of {patch_size}; "
            f"use another patch_size or screen size"
        )
    rows, columns = height // patch_size, width // patch_size
    grid = frames.reshape(*lead, rows, patch_size, columns, patch_size, channels)
    return grid.transpose(-4, -3).reshape(*lead, rows * columns, -1)
