"""What a step is like inside, looked at every so many steps; no bit of the training changes."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vj2_ddim_plugin.schedule import conversion, signal_and_noise
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.diffusion_model import DiffusionLoss
from vj2_ddim_training.loop import StepDone, TrainingLoop
from vj2_ddim_training.run_folder import Tracker

__all__ = ["StepWatch", "describe", "noise_reduction"]

DESCRIBED = ("mean", "std", "dead", "saturated")
SATURATED = 10.0  # an output of this size is on the flat or straight part of what follows


class StepWatch:
    """Looks at one step in `log_every` of a loop, and tells the tracker of it.

    Of the loss, the norms of gradient and weights, the learning rate, the seconds a sample; and
    `look_into` a `DiffusionLoss`, of how much of the noise goes (`noise_reduction`) and, for the
    output of every layer, of its mean, std, and its shares that are dead and saturated.
    """

    def __init__(
        self, loop: TrainingLoop, tracker: Tracker, config: TrainingConfig, prediction_type: str
    ) -> None:
        self._loop, self._tracker, self._every = loop, tracker, config.log_every
        self._prediction_type = prediction_type
        self._module: DiffusionLoss | None = None
        self._hooks: list[RemovableHandle] = []
        self._step = 0  # the one that is looked at; 0 for none
        self._outputs: dict[str, Tensor] = {}
        self._numbers: dict[str, Tensor] = {}
        self._seen: dict[int, tuple[dict[str, float], dict[str, dict[str, float]]]] = {}

    def look_into(self, module: nn.Module) -> None:
        """What to look at besides the loop."""
        self._module = module if isinstance(module, DiffusionLoss) else None

    def begin(self, step: int) -> None:
        """So many steps are taken, the next one begins."""
        self._look_away()
        if (step + 1) % self._every:
            return
        self._step = step + 1
        if self._module is None:
            return
        self._module.watch = self._see
        for name, layer in self._module.model.named_modules():
            if not any(layer.children()):
                self._hooks.append(layer.register_forward_hook(partial(self._keep, name)))

    def __call__(self, done: StepDone) -> None:
        """A step was taken; the loop may say so a few steps later."""
        self._look_away()
        seen = self._seen.pop(done.step, None)
        if seen is None:
            return
        numbers, layers = seen
        own = {
            "loss": done.loss,
            "gradient_norm": done.gradient_norm,
            "seconds_per_sample": 1.0 / done.samples_per_second,
        }
        self._tracker.log_step(done.step, {**own, **numbers, "activations": layers})

    def _see(self, noisy: Tensor, output: Tensor, original: Tensor, alpha: Tensor) -> None:
        given = noisy.detach(), output.detach().float(), original, alpha
        self._numbers["noise_reduction"] = noise_reduction(*given, self._prediction_type)

    def _keep(self, name: str, layer: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim:
            self._outputs[name] = describe(output.detach())

    def _look_away(self) -> None:
        """The step that was looked at is over: its weights have changed."""
        if not self._step:
            return
        while self._hooks:
            self._hooks.pop().remove()
        if self._module is not None:
            self._module.watch = None
        norms = [weight.detach().norm() for weight in self._loop.task.model.parameters()]
        scalars = {"weight_norm": torch.stack(norms).norm(), **self._numbers}
        numbers = dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))
        numbers["learning_rate"] = self._loop.learning_rate.get_last_lr()[0]
        rows = torch.stack(list(self._outputs.values())).tolist() if self._outputs else []
        layers = {
            name: dict(zip(DESCRIBED, row, strict=True))
            for name, row in zip(self._outputs, rows, strict=True)
        }
        self._seen[self._step] = numbers, layers
        self._step, self._outputs, self._numbers = 0, {}, {}


def describe(output: Tensor) -> Tensor:
    """Of `[..., W]`: mean, std, dead and saturated, four numbers.

    A unit, one of W, is dead where it is the same for all the batch; a value is saturated where its
    size is above 10.
    """
    values = output.float()
    units = values.reshape(-1, values.shape[-1])
    still = (units.amax(dim=0) == units.amin(dim=0)).float() if len(units) > 1 else units[0] * 0
    flat = (values.abs() > SATURATED).float()
    return torch.stack([values.mean(), values.std(correction=0), still.mean(), flat.mean()])


def noise_reduction(
    noisy: Tensor, output: Tensor, original: Tensor, alpha: Tensor, prediction_type: str
) -> Tensor:
    """The share of the noise in a batch, of its power, that one call of the denoiser takes away.

    1 minus mse(signal * pred_x0, signal * x0) over mse(x_t, signal * x0), signal being the share of
    x0 in x_t: 1 where x0 is found, 0 where all noise is left, and below 0 where some was added.
    Scaled so, no timestep outweighs the others, whatever is predicted.
    """
    signal, _ = signal_and_noise(alpha)
    of_sample, of_output = conversion(prediction_type, alpha)[0]
    clean = signal * original
    left = signal * (of_sample * noisy + of_output * output) - clean
    share: Tensor = left.square().mean() / (noisy - clean).square().mean()
    return 1.0 - share
