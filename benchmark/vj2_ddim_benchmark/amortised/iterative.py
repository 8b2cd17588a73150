"""Rivals with the denoiser's own network and condition encoder, trained for another question.

What they lose or win against DDIM is what diffusion itself adds.
"""

import torch
from torch import Tensor
from torch.nn import functional

from vj2_ddim_benchmark.amortised import base
from vj2_ddim_benchmark.amortised.base import AmortisedConfig, Context, Inputs, Rng, Shapes
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.diffusion_model import DiffusionModel, diffusion_loss

TIME = 1000.0  # what the network is told at the end of the way from noise to plan
NEARLY = 0.9  # how near to the plan MIP's second question begins


class NetworkModel(base.AmortisedModel):
    """The denoiser's network: an array, a time in [0, 1] and the condition to an array.

    As it is, the denoiser itself, for `DDIMOptimizer`.
    """

    def __init__(self, config: AmortisedConfig, spec: ActionSpec, input_shapes: Shapes) -> None:
        super().__init__(config, spec, input_shapes)
        same = {name: getattr(config, name) for name in base.SAME}
        how = ModelConfig(condition="latents", **same)
        self.network = DiffusionModel(how, spec, NoiseSchedule(), input_shapes)

    @property
    def encoder(self) -> LatentEncoder:  # type: ignore[override]
        """The network's."""
        encoder: LatentEncoder = self.network.condition_encoder  # type: ignore[assignment]
        return encoder

    def loss(self, original: Tensor, inputs: Inputs, chance: base.Chance) -> Tensor:
        """See `diffusion_loss`."""
        shown = {name: inputs[name] for name in ("state", "goal")}
        return diffusion_loss(self.network, original, shown, *chance)

    def draw(self, context: Context, how: base.Sampling, num: int, rng: Rng) -> FloatArray:
        """From noise of `std_scale`."""
        drawn = how.std_scale * rng.standard_normal((num, *self.action_spec.diffused_shape))
        noise = torch.from_numpy(drawn).float()
        (found,) = base.in_rows(lambda s, g: (self.plans(s, g, noise, how),), context, how.batched)
        return found

    def plans(self, state: Tensor, goal: Tensor, noise: Tensor, how: base.Sampling) -> Tensor:
        """Candidates `[B, K, M, C]` of B problems from noise `[K, M, C]`."""
        raise ConfigError(f"a model of kind {self.config.kind!r} is sampled by DDIMOptimizer")

    def told(self, original: Tensor, inputs: Inputs, how: TrainingConfig) -> tuple[Tensor, Tensor]:
        """The condition tokens, and the denoiser's second loss, that teaches them to look."""
        condition: Tensor = self.encoder(inputs["state"], inputs["goal"])
        error = functional.mse_loss(self.network.guess(condition), original)
        return condition, how.auxiliary_weight * error

    def ask(self, arrays: Tensor, time: Tensor | float, condition: Tensor) -> Tensor:
        """The network's answer for arrays `[B, M, C]` at a time, or `[B]` of them, in [0, 1]."""
        times = TIME * torch.as_tensor(time).expand(len(arrays))
        answer: Tensor = self.network(arrays, times, condition)
        return answer


class FlowModel(NetworkModel):
    """A velocity that carries noise to plans on straight lines, x_t = (1 - t) z + t x.

    Lipman et al. (2023), "Flow matching for generative modeling", with its path of straight lines.
    """

    def loss(self, original: Tensor, inputs: Inputs, chance: base.Chance) -> Tensor:
        """Squared error of the velocity x - z, at as many times an example as a denoiser's."""
        generator, how = chance
        condition, auxiliary = self.told(original, inputs, how)
        num = how.noises_per_example
        original, condition = (of.repeat_interleave(num, dim=0) for of in (original, condition))
        noise = torch.randn(original.shape, generator=generator).to(original.device)
        drawn = torch.rand(2, len(original), generator=generator).to(original.device)
        time, hidden = drawn[0], drawn[1] < how.condition_dropout
        there = time[:, None, None]
        shown = self.network.hide(condition, hidden)
        velocity = self.ask((1 - there) * noise + there * original, time, shown)  # type: ignore[arg-type]
        return functional.mse_loss(velocity, original - noise) + auxiliary

    def plans(self, state: Tensor, goal: Tensor, noise: Tensor, how: base.Sampling) -> Tensor:
        """Where Euler's steps lead from noise."""
        condition: Tensor = self.encoder(state, goal).repeat_interleave(len(noise), dim=0)
        null = self.network.null_condition.expand_as(condition)
        found = noise.repeat(len(state), 1, 1)
        for step in range(how.num_steps):
            velocity = self.ask(found, step / how.num_steps, condition)
            if how.guidance_scale != 1.0:
                without = self.ask(found, step / how.num_steps, null)
                velocity = without + how.guidance_scale * (velocity - without)
            found = found + velocity / how.num_steps
        return found.reshape(len(state), *noise.shape)


class MIPModel(NetworkModel):
    """Regression asked twice: from nothing, then from near the first answer.

    Pan et al. (2025), "Much ado about noising: dispelling the myths of generative robotic control"
    (arXiv 2512.01809): supervised steps and noise while training are what makes generative policies
    strong, not the distribution. So the second question is trained around the true plan, with
    noise, and asked around the first answer, without.
    """

    def loss(self, original: Tensor, inputs: Inputs, chance: base.Chance) -> Tensor:
        """The squared errors of both answers."""
        condition, auxiliary = self.told(original, inputs, chance.how)
        noise = torch.randn(original.shape, generator=chance.generator).to(original.device)
        first = self.ask(torch.zeros_like(original), 0.0, condition)
        second = self.ask(NEARLY * original + (1 - NEARLY) * noise, NEARLY, condition)
        errors = [functional.mse_loss(answer, original) for answer in (first, second)]
        return errors[0] + errors[1] + auxiliary

    def plans(self, state: Tensor, goal: Tensor, noise: Tensor, how: base.Sampling) -> Tensor:
        """Second answers, of which only the first is without noise."""
        condition: Tensor = self.encoder(state, goal)
        noise = torch.cat([torch.zeros_like(noise[:1]), noise[1:]])
        first = self.ask(condition.new_zeros(len(state), *noise.shape[1:]), 0.0, condition)
        near = NEARLY * first[:, None] + (1 - NEARLY) * noise
        tokens = condition.repeat_interleave(len(noise), dim=0)
        return self.ask(near.flatten(0, 1), NEARLY, tokens).reshape(near.shape)
