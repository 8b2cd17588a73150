"""`Predictor`: a trained amortised model, numpy in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vj2_ddim_benchmark.amortised.file import load_amortised
from vj2_ddim_benchmark.amortised.model import AmortisedModel
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["Predictor"]


class Predictor:
    """Predicts on the CPU, with torch's own number of threads.

    Args:
        model: The trained model; it is put into evaluation mode.
    """

    provider = "torch-cpu"

    def __init__(self, model: AmortisedModel) -> None:
        self.model = model.cpu().eval()
        self.action_spec, self.condition = model.action_spec, model.condition

    @classmethod
    def load(cls, path: Path | str, kind: str) -> Predictor:
        """Read a file; raises `CheckpointError` if it is broken or of another kind."""
        return cls(load_amortised(path, kind))

    @torch.inference_mode()
    def predict(self, context: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the diffused array, normalized.

        One problem at a time, so that rounding does not depend on the batch.

        Args:
            context: `state` and `goal`, float32 `[B, N, D]` each.

        Returns:
            `[B, M, C]` each; the latter means something for kind `gaussian` only.
        """
        state, goal = torch.from_numpy(context["state"]), torch.from_numpy(context["goal"])
        rows = [self.model(state[[row]], goal[[row]]) for row in range(len(state))]
        mean = np.concatenate([mean.numpy() for mean, _ in rows])
        std = np.concatenate([log_std.exp().numpy() for _, log_std in rows])
        return mean, std
