"""What all amortised models are: their sizes, how they are sampled, and what each must answer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vj2_ddim_benchmark.settings import AMORTISED
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.denoisers.dit import DiTDenoiser

KINDS = (*AMORTISED, "ddim")
SAME = ("d_model", "num_layers", "nhead", "patch_size", "condition_layers", "condition_tokens")

Shapes = Mapping[str, tuple[int, ...]]
Inputs = Mapping[str, Tensor]
Context = Mapping[str, FloatArray]
Rng = np.random.Generator


class Chance(NamedTuple):
    """What a loss may draw with, and the settings of training."""

    generator: torch.Generator
    how: TrainingConfig


@dataclass(frozen=True)
class AmortisedConfig(Settings):
    """What is built. All of it is stored in the file."""

    kind: str = setting("regression", "What it predicts, and by which loss.", choices=KINDS)
    d_model: int = setting(128, "Width of the condition tokens.", low=1)
    nhead: int = setting(4, "Attention heads; must divide `d_model`.", low=1)
    condition_layers: int = setting(2, "Layers that mix latent patches.", low=0)
    condition_tokens: int = setting(16, "Tokens that latents are gathered into.", low=1)
    head_width: int = setting(512, "Width of the two layers that read the tokens.", low=1)
    num_layers: int = setting(4, "Layers of the denoiser's network (mip, flow, ddim).", low=1)
    patch_size: int = setting(1, "Its diffused rows in a token; 0 is 1.", low=0)
    longest_goal: int = setting(1, "Farthest goal it is asked for (inverse-dynamics).", low=1)
    num_components: int = setting(8, "Gaussians of a mixture.", low=1)

    @classmethod
    def like(
        cls, kind: str, denoiser: ModelConfig, action_spec: ActionSpec, longest_goal: int = 1
    ) -> "AmortisedConfig":
        """The denoiser's condition encoder, and a head of about as many weights as it has."""
        if denoiser.condition != "latents":
            found = f"condition 'latents'; found {denoiser.condition!r}"
            raise ConfigError(f"the denoiser to be compared with must have {found}")
        rows, channels = action_spec.diffused_shape
        width, heads, tokens = denoiser.d_model, denoiser.nhead, denoiser.condition_tokens
        layers = denoiser.num_layers
        with torch.random.fork_rng(devices=[]):  # only its size is of interest
            network = DiTDenoiser(rows, channels, width, layers, heads, conditional=True)
        wanted = sum(weight.numel() for weight in network.parameters())
        sizes: dict[str, Any] = {name: getattr(denoiser, name) for name in SAME}
        sizes |= {"kind": kind, "longest_goal": longest_goal}
        outputs = math.prod(cls(**sizes).head_shape(action_spec))
        read = tokens * width + outputs  # read * head + head^2 = wanted, but for biases
        head = max(1, round((math.sqrt(read**2 + 4 * wanted) - read) / 2))
        return cls(**sizes, head_width=head)

    def head_shape(self, spec: ActionSpec) -> tuple[int, ...]:
        """What a head predicts of one problem: mean and spread, of one Gaussian or of several."""
        if self.kind == "mixture":
            return self.num_components, 1 + 2 * math.prod(spec.diffused_shape)
        return 2, *spec.diffused_shape


@dataclass(frozen=True)
class Sampling(Settings):
    """What is made of a prediction."""

    num_candidates: int = setting(1, "The most likely plan, and so many less one others.", low=1)
    std_scale: float = setting(
        1.0, "Factor of the spread: predicted, of the noise, or 1 where none is known.", low=0.0
    )
    greedy: bool = setting(True, "Whether a mixture's first is its likeliest mean, not a draw.")
    num_steps: int = setting(10, "Euler steps of a flow.", low=1)
    guidance_scale: float = setting(1.0, "Of a flow, as a denoiser's.", low=0.0)
    batched: bool = setting(
        False, "All problems in one pass, for many at once: then rounding depends on the others."
    )
    seed: int = setting(0, "Used where a problem brings none.", low=0)


class AmortisedModel(nn.Module, ABC):
    """Predicts the diffused array, normalized, of `state` and `goal` latents."""

    encoder: LatentEncoder

    def __init__(self, config: AmortisedConfig, spec: ActionSpec, input_shapes: Shapes) -> None:
        super().__init__()
        self.config, self.action_spec, shapes = config, spec, dict(input_shapes)
        self.condition = ConditionSpec("latents", shapes, config.condition_tokens, config.d_model)

    @abstractmethod
    def loss(self, original: Tensor, inputs: Inputs, chance: Chance) -> Tensor:
        """A scalar, of x_0 `[B, M, C]` given latents and `horizon` `[B]`, steps to the goal."""

    @abstractmethod
    def draw(self, context: Context, how: Sampling, num: int, rng: Rng) -> FloatArray:
        """Candidates `[B, num, M, C]`, the same random numbers for all B; the best guess first."""


def in_rows(
    network: Callable[[Tensor, Tensor], Sequence[Tensor]], context: Context, batched: bool = False
) -> list[FloatArray]:
    """What a network makes of states and goals: one at a time, as rounding depends on the batch."""
    state, goal = (torch.from_numpy(context[name]) for name in ("state", "goal"))
    size = len(state) if batched else 1
    with torch.inference_mode():
        pairs = zip(torch.split(state, size), torch.split(goal, size), strict=True)
        parts = [network(*pair) for pair in pairs]
    return [torch.cat(part).numpy() for part in zip(*parts, strict=True)]
