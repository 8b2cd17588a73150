"""An amortised planner's model: latents to the mean and std of a plan in one pass, and its file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vj2_ddim_benchmark.model_files import half_weights, read_model
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, VJ2DDIMError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.denoisers.dit import DiTDenoiser
from vj2_ddim_training.loop import save_atomically

__all__ = ["KINDS", "STD_FLOOR", "AmortisedConfig", "AmortisedModel"]
__all__ += ["load_amortised", "save_amortised"]

KINDS = ("regression", "gaussian")
STD_FLOOR = 0.01  # of the normalized array: a third of a pixel on a screen of 64
FORMAT = "vj2-ddim amortised planner 1"
FIELDS: dict[str, type] = {
    **dict.fromkeys(("config", "action_spec", "condition", "weights", "training"), dict),
    "provenance": dict,
    "data_fingerprint": str,
}


@dataclass(frozen=True)
class AmortisedConfig(Settings):
    """What is built. All of it is stored in the file."""

    kind: str = setting("regression", "Which loss it is trained with.", choices=KINDS)
    d_model: int = setting(128, "Width of the condition tokens.", low=1)
    nhead: int = setting(4, "Attention heads; must divide `d_model`.", low=1)
    condition_layers: int = setting(2, "Layers that mix latent patches.", low=0)
    condition_tokens: int = setting(16, "Tokens that latents are gathered into.", low=1)
    head_width: int = setting(512, "Width of the two layers that read the tokens.", low=1)

    @classmethod
    def like(cls, kind: str, denoiser: ModelConfig, action_spec: ActionSpec) -> AmortisedConfig:
        """The denoiser's condition encoder, and a head of about as many weights as it has."""
        if denoiser.condition != "latents":
            raise ConfigError(
                f"the denoiser to be compared with must have condition 'latents'; found "
                f"{denoiser.condition!r}"
            )
        rows, channels = action_spec.diffused_shape
        width, layers, heads = denoiser.d_model, denoiser.num_layers, denoiser.nhead
        with torch.random.fork_rng(devices=[]):  # only its size is of interest
            network = DiTDenoiser(rows, channels, width, layers, heads, conditional=True)
        wanted = sum(weight.numel() for weight in network.parameters())
        read = denoiser.condition_tokens * denoiser.d_model + 2 * rows * channels
        return cls(  # read * width + width^2 = wanted, biases left aside
            kind,
            denoiser.d_model,
            denoiser.nhead,
            denoiser.condition_layers,
            denoiser.condition_tokens,
            max(1, round((math.sqrt(read**2 + 4 * wanted) - read) / 2)),
        )


class AmortisedModel(nn.Module):
    """The denoiser's condition encoder, and a head that reads all of its tokens at once.

    What it predicts is the array that is diffused, normalized.
    """

    def __init__(
        self,
        config: AmortisedConfig,
        action_spec: ActionSpec,
        input_shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.config, self.action_spec = config, action_spec
        self.condition = ConditionSpec(
            "latents", dict(input_shapes), config.condition_tokens, config.d_model
        )
        self.encoder = LatentEncoder(
            dict(input_shapes), config.d_model, config.condition_layers, config.nhead,
            config.condition_tokens,
        )  # fmt: skip
        rows, channels = action_spec.diffused_shape
        width = config.head_width
        self.head = nn.Sequential(
            nn.LayerNorm(config.d_model),
            nn.Flatten(),
            nn.Linear(config.condition_tokens * config.d_model, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, 2 * rows * channels),
            nn.Unflatten(1, (2, rows, channels)),
        )

    def forward(self, state: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the std, `[B, M, C]` each, of latents `[B, N, D]`.

        The latter means something for kind `gaussian` only, and stays above `STD_FLOOR`.
        """
        mean, free = self.head(self.encoder(state, goal)).unbind(dim=1)
        floor = torch.full_like(free, math.log(STD_FLOOR))
        return mean, torch.logaddexp(free, floor)

    @torch.inference_mode()
    def predict(self, context: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Mean and std, `[B, M, C]` each, of `state` and `goal`; numpy in and out, on the CPU.

        One problem at a time, so that rounding does not depend on the batch.
        """
        state, goal = torch.from_numpy(context["state"]), torch.from_numpy(context["goal"])
        rows = [self(state[[row]], goal[[row]]) for row in range(len(state))]
        mean = np.concatenate([mean.numpy() for mean, _ in rows])
        std = np.concatenate([log_std.exp().numpy() for _, log_std in rows])
        return mean, std


def save_amortised(
    model: AmortisedModel, path: Path | str, *,
    data_fingerprint: str, training: Mapping[str, Any], provenance: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write one file that `torch.load(weights_only=True)` opens, whole or not at all.

    Weights are written in half precision, which halves the file; training has rounded them.
    """
    contents = {
        "format": FORMAT,
        "config": model.config.to_dict(),
        "action_spec": model.action_spec.to_dict(),
        "condition": model.condition.to_dict(),
        "weights": half_weights(model),
        "training": dict(training),
        "provenance": dict(provenance),
        "data_fingerprint": data_fingerprint,
    }
    save_atomically(contents, Path(path))


def load_amortised(path: Path | str, kind: str | None = None) -> AmortisedModel:
    """Read a model (of any kind if None) on the CPU; `CheckpointError` names file and field."""
    contents = read_model(Path(path), FORMAT, FIELDS)
    try:
        config = AmortisedConfig.from_dict(contents["config"])
        condition = ConditionSpec.from_dict(contents["condition"])
        spec = ActionSpec.from_dict(contents["action_spec"])
        model = AmortisedModel(config, spec, condition.inputs)
        model.load_state_dict(contents["weights"])
    except (VJ2DDIMError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: the fields of this model do not fit one another ({reason}); train it again"
        ) from error
    if model.condition != condition:
        raise CheckpointError(
            f"{path}: the field 'condition' says {condition}, the model has {model.condition}; "
            f"train it again"
        )
    broken = [name for name, value in contents["weights"].items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path}: {broken[0]} is not finite; training diverged, train again")
    if kind is not None and config.kind != kind:
        raise CheckpointError(
            f"{path}: holds a model of kind {config.kind!r}, expected {kind!r}; give the other file"
        )
    return model.eval()
