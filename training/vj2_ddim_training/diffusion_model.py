"""`DiffusionModel`: a denoiser, its condition encoder, what they were made for, and their loss."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.model import EncodedContext
from vj2_ddim_plugin.schedule import NoiseSchedule, signal_and_noise, target_of
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec
from vj2_ddim_training.condition_encoders import LatentEncoder, SketchEncoder
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.denoisers.dit import DiTDenoiser
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser

__all__ = ["DiffusionLoss", "DiffusionModel", "Draws", "TorchSampler", "diffusion_loss", "draw"]

Shapes = Mapping[str, tuple[int, ...]]
OnOutput = Callable[[Tensor, Tensor, Tensor, Tensor], None]
NUMBERS_AT_ONCE = 2**23  # of condition inputs that are encoded at once without gradients
PLAIN = TrainingConfig(condition_dropout=0.0, auxiliary_weight=0.0)


class DiffusionModel(nn.Module):
    """Everything that has weights; sizes that do not fit one another are a `ConfigError`.

    `input_shapes` are those of the condition inputs without their batch axis, none if there are no
    such inputs; `guidance`, whether the null condition is trained.
    """

    def __init__(
        self,
        config: ModelConfig,
        action_spec: ActionSpec,
        schedule: NoiseSchedule,
        input_shapes: Shapes | None = None,
        guidance: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.action_spec, self.schedule = config, action_spec, schedule
        shapes = dict(input_shapes or {})
        tokens = {"none": 0, "sketch": prod(shapes.get("sketch", ()))}
        num_tokens = tokens.get(config.condition, config.condition_tokens)
        width, guidance = config.d_model if num_tokens else 0, guidance or not num_tokens
        self.condition = ConditionSpec(config.condition, shapes, num_tokens, width, guidance)
        rows, channels = action_spec.diffused_shape
        sizes = config.d_model, config.num_layers, config.nhead
        self.denoiser: nn.Module
        self.condition_encoder: nn.Module | None = None
        if config.architecture == "minimal":
            self.denoiser = MinimalDenoiser(rows, channels, *sizes, config.dim_feedforward)
        else:
            conditional = config.condition != "none"
            self.denoiser = DiTDenoiser(rows, channels, *sizes, config.patch_size or 1, conditional)
        if config.condition == "sketch":
            self.condition_encoder = SketchEncoder(shapes, config.d_model)
        elif config.condition == "latents":
            layers, told = config.condition_layers, config.correspondences
            self.condition_encoder = LatentEncoder(
                shapes, config.d_model, layers, config.nhead, num_tokens, told
            )
            # trains the tokens; the plugin never sees it
            self.auxiliary_head = nn.Linear(config.d_model, rows * channels)
        if num_tokens:
            self.null_condition = nn.Parameter(0.02 * torch.randn(1, num_tokens, config.d_model))

    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """Condition tokens `[B, S, W]`, or None for an unconditional model."""
        if self.condition_encoder is None:
            return None
        rows = max(1, NUMBERS_AT_ONCE // sum(prod(of.shape[1:]) for of in inputs.values()))
        if torch.is_grad_enabled() or len(next(iter(inputs.values()))) <= rows:
            tokens: Tensor = self.condition_encoder(**inputs)
            return tokens
        parts = []  # large latents take much memory
        for first in range(0, len(next(iter(inputs.values()))), rows):
            part = {name: of[first : first + rows] for name, of in inputs.items()}
            parts.append(self.condition_encoder(**part))
        return torch.cat(parts)

    def guess(self, condition: Tensor) -> Tensor:
        """x_0 `[B, M, C]` regressed from the first condition token, see `diffusion_loss`."""
        guess: Tensor = self.auxiliary_head(condition[:, 0])
        return guess.reshape(-1, *self.action_spec.diffused_shape)

    def hide(self, condition: Tensor | None, hidden: Tensor) -> Tensor | None:
        """Replace the tokens of the rows where `hidden` `[B]` is True by the null condition."""
        if condition is None:
            return None
        return torch.where(hidden[:, None, None], self.null_condition, condition)

    def forward(self, sample: Tensor, timesteps: Tensor, condition: Tensor | None) -> Tensor:
        """The denoiser's output for `[B, M, C]` at timesteps `[B]`."""
        output: Tensor = self.denoiser(sample, timesteps, condition)
        return output


class TorchSampler:
    """A `DiffusionModel`, in evaluation mode, as the plugin's `SamplerModel`."""

    def __init__(self, model: DiffusionModel) -> None:
        self.model = model.eval()
        self.action_spec, self.schedule = model.action_spec, model.schedule
        self.condition = model.condition
        self.device = next(model.parameters()).device
        self.provider = f"torch-{self.device.type}"

    @torch.inference_mode()
    def encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        """Run the condition encoder; None for an unconditional model."""
        tokens = self.model.encode(
            {name: torch.as_tensor(array, device=self.device) for name, array in context.items()}
        )
        if tokens is None:
            return None
        null = self.model.null_condition.expand(len(tokens), -1, -1)
        return EncodedContext(tokens.cpu().numpy(), null.cpu().numpy())

    @torch.inference_mode()
    def denoise(
        self, sample: FloatArray, timestep: int, condition: FloatArray | None
    ) -> FloatArray:
        """Run the denoiser once; without `condition` a conditional model gets its null one."""
        tokens: Tensor | None = None
        if condition is not None:
            tokens = torch.as_tensor(condition, device=self.device)
        elif self.model.condition_encoder is not None:
            tokens = self.model.null_condition.expand(len(sample), -1, -1)
        timesteps = torch.full((len(sample),), timestep, device=self.device)
        noisy = torch.as_tensor(np.asarray(sample, np.float32), device=self.device)
        output: FloatArray = self.model(noisy, timesteps, tokens).cpu().numpy()
        return output

    def close(self) -> None:
        """Nothing to free that garbage collection does not."""


class Draws(NamedTuple):
    """What chance decides of a batch: an array of rows `[B * noises_per_example, ...]` each."""

    timesteps: Tensor
    alpha: Tensor  # `alphas_cumprod` at them, `[b, 1, 1]`
    noise: Tensor
    hidden: Tensor  # whether the condition is


def draw(
    schedule: NoiseSchedule, shape: Sequence[int], generator: torch.Generator, dropout: float = 0.0
) -> Draws:
    """Draw for noisy arrays of a shape `[b, M, C]`, on the CPU."""
    timesteps = torch.randint(schedule.num_train_timesteps, shape[:1], generator=generator)
    noise = torch.randn(shape, generator=generator)
    hidden = torch.rand(shape[0], generator=generator) < dropout
    alphas = torch.as_tensor(schedule.alphas_cumprod, dtype=torch.float32)
    return Draws(timesteps, alphas[timesteps][:, None, None], noise, hidden)


def diffusion_loss(
    model: DiffusionModel,
    original: Tensor,
    inputs: Mapping[str, Tensor],
    chance: torch.Generator | Draws,
    config: TrainingConfig = PLAIN,
    watch: OnOutput | None = None,
) -> Tensor:
    """Mean squared error at uniformly drawn timesteps, of x_0 `[B, M, C]`, normalized.

    All randomness is drawn already, or comes from a generator of the CPU. An example's condition is
    encoded once for all of its noises, which is what makes latents cheap to train on. For them
    there is a second loss: x_0 regressed from the first condition token, so that the encoder learns
    early where on the screen to look. `watch` sees x_t, the output, x_0 and alphas_cumprod.
    """
    noises_per_example, auxiliary_weight = config.noises_per_example, config.auxiliary_weight
    original = original.repeat_interleave(noises_per_example, dim=0)
    if isinstance(chance, torch.Generator):
        chance = draw(model.schedule, original.shape, chance, config.condition_dropout)
        chance = Draws(*(drawn.to(original.device) for drawn in chance))
    timesteps, alpha, noise, hidden = chance
    signal, spread = signal_and_noise(alpha)
    noisy = signal * original + spread * noise
    condition = model.encode(inputs)
    auxiliary = original.new_zeros(())
    if condition is not None:
        if model.config.condition == "latents" and auxiliary_weight > 0.0:
            auxiliary = functional.mse_loss(model.guess(condition), original[::noises_per_example])
        condition = condition.repeat_interleave(noises_per_example, dim=0)
    output = model(noisy, timesteps, model.hide(condition, hidden))
    if watch is not None:
        watch(noisy, output, original, alpha)
    target = target_of(model.schedule.prediction_type, original, noise, alpha)
    return functional.mse_loss(output, target) + auxiliary_weight * auxiliary


class DiffusionLoss(nn.Module):
    """`diffusion_loss` of a model as a module, which can be compiled and spread over devices."""

    def __init__(self, model: DiffusionModel, config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.watch: OnOutput | None = None

    def forward(self, original: Tensor, inputs: Mapping[str, Tensor], draws: Draws) -> Tensor:
        """The loss of examples at what was drawn for them."""
        return diffusion_loss(self.model, original, inputs, draws, self.config, self.watch)
