"""What a step is like inside, looked at every so many steps; no bit of the training changes."""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vj2_ddim_plugin.schedule import conversion, signal_and_noise
from vj2_ddim_training.loop import StepDone, TrainingLoop
from vj2_ddim_training.run_folder import Tracker

__all__ = ["StepWatch", "describe", "noise_reduction"]

SATURATED = 10.0  # an output of this size is on the flat or straight part of what follows


class StepWatch:
    """Told of every step of a loop; tells the tracker of one in `every`.

    Of a step that is told: the loss, the norms of gradient and weights, the learning rate, the
    seconds a sample, how much of the noise goes (`noise_reduction`), and for the output of every
    layer its mean, std, and the shares that are dead and saturated (`describe`).
    """

    def __init__(
        self, loop: TrainingLoop, tracker: Tracker, every: int, prediction_type: str
    ) -> None:
        self._loop, self._tracker, self._every = loop, tracker, every
        self._prediction_type = prediction_type
        self._hooks: list[RemovableHandle] = []
        self._outputs: dict[str, Tensor] = {}
        self.reduction: Tensor | None = None
        self._look_at(loop.step + 1)

    @property
    def looking(self) -> bool:
        """Whether the step that is taken now is one that is told."""
        return bool(self._hooks)

    def see(self, noisy: Tensor, output: Tensor, original: Tensor, alpha: Tensor) -> None:
        """What one call of the denoiser was given and returned, and what was right."""
        if self.looking:
            given = noisy.detach(), output.detach(), original, alpha
            self.reduction = noise_reduction(*given, self._prediction_type)

    def __call__(self, done: StepDone) -> None:
        """A step was taken."""
        if self.looking:
            self._tell(done)
            while self._hooks:
                self._hooks.pop().remove()
        self._look_at(done.step + 1)

    def _look_at(self, step: int) -> None:
        """Look inside, if this step is one that is told."""
        self._outputs, self.reduction = {}, None
        if step % self._every:
            return
        for name, module in self._loop.task.model.named_modules():
            if not any(module.children()):
                self._hooks.append(module.register_forward_hook(self._hook(name)))

    def _hook(self, name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and output.ndim:
                self._outputs[name] = describe(output.detach())

        return hook

    def _tell(self, done: StepDone) -> None:
        model = self._loop.task.model
        norms = [weight.detach().norm() for weight in model.parameters()]
        scalars = [torch.stack(norms).norm()]
        scalars += [] if self.reduction is None else [self.reduction]
        weight_norm, *reduction = torch.stack(scalars).tolist()
        numbers = {
            "loss": done.loss,
            "gradient_norm": done.gradient_norm,
            "weight_norm": weight_norm,
            "learning_rate": self._loop.learning_rate.get_last_lr()[0],
            "seconds_per_sample": 1.0 / done.samples_per_second,
            **({"noise_reduction": reduction[0]} if reduction else {}),
        }
        names = ("mean", "std", "dead", "saturated")
        rows = torch.stack(list(self._outputs.values())).tolist() if self._outputs else []
        inside = {
            name: dict(zip(names, row, strict=True))
            for name, row in zip(self._outputs, rows, strict=True)
        }
        self._tracker.log_step(done.step, {**numbers, "activations": inside})


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
    return 1.0 - left.square().mean() / (noisy - clean).square().mean()
