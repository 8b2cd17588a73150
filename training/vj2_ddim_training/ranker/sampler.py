"""A model and its ranker as the plugin sees them, torch underneath."""

from __future__ import annotations

import torch

from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.ranker.network import Ranker

__all__ = ["RankedSampler"]


class RankedSampler(TorchSampler):
    """A `SamplerModel` with a ranker: `DDIMOptimizer(RankedSampler(...), num_ranked=1)`.

    Args:
        model: The model; it is put into evaluation mode.
        ranker: Trained for it; likewise.
    """

    def __init__(self, model: DiffusionModel, ranker: Ranker) -> None:
        super().__init__(model)
        self._ranker = ranker.to(self.device).eval()

    @torch.inference_mode()
    def ranker(self, candidates: FloatArray, condition: FloatArray, /) -> FloatArray:
        """Predict the cost `[n]` of `[n, M, C]` under tokens `[n, S, W]`."""
        predicted = self._ranker(
            torch.as_tensor(candidates, device=self.device),
            torch.as_tensor(condition, device=self.device),
        )
        cost: FloatArray = predicted.cpu().numpy()
        return cost
