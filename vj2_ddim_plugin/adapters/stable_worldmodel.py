"""A solver for stable-worldmodel: its published layout (0.1.1) and the newer one.

```yaml
solver:
  _target_: vj2_ddim_plugin.adapters.stable_worldmodel.StableWorldModelSolver
  bundle: path/to/bundle
```

**Units.** The host plans in normalized actions, those that its policy's `process["action"]` turns
into the environment's. So does this solver: the bundle must have been trained on actions
normalized by that same scaler, and its bounds are the environment's bounds, normalized.

**Shapes.** B problems, N candidates, H world-model steps of `action_block` actions with A channels
each: the host's `(B, H, D)` has D = action_block * A, the bundle's `[B, L, A]` has L = H *
action_block. Both lie in memory alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vj2_ddim_plugin.adapters.checks import checked_plan, wanted_context
from vj2_ddim_plugin.adapters.deadline_setting import DeadlineSetting
from vj2_ddim_plugin.adapters.stable_worldmodel_info import (
    Encode,
    Info,
    InfoCost,
    batch_of,
    encode_last_frames,
    placed,
    warm_start,
)
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem, PlanResult
from vj2_ddim_plugin.optimizer import DDIMOptimizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["StableWorldModelSolver"]

HOST = "stable-worldmodel"


class StableWorldModelSolver:
    """The host's `Solver` protocol, with a `DDIMOptimizer` behind it.

    Args:
        bundle: The bundle's folder.
        model: The cost model, as 0.1.1 passes it.
        cost: The same, as the newer layout passes it.
        num_candidates: Samples ranked by the host's cost.
        num_inference_steps: DDIM steps.
        num_refinements: Rounds that re-noise the best candidates.
        ranked: Whether the host's cost is asked at all; without it the one sample is the plan, and
            its cost is NaN.
        batch_size: Environments in one call of the host's cost. 1 is the host's own default, and
            the only number with which the cost of its LeWM is right.
        seed: The same seed gives the same plan for the same problem.
        deadline_s: Seconds that one `solve` may take after the encoding, or None.
        provider: Of ONNX Runtime: `auto`, `cpu` or `cuda`.
        num_threads: Of ONNX Runtime; None leaves its choice.
        device: Where the cost model is.
        encode: The latents; `encode_last_frames` suits models with LeWM's `encode`.
        callbacks: The host's callbacks, called once a round with `step`, `candidates (B, N, H, D)`
            and `costs (B, N)`, and no more: recorders of elites or gradients find none here. With a
            deadline, once a `solve`, with all that was ranked: a round is then ranked in slices.
        **settings: Any other setting of `DDIMOptimizer`.

    Attributes:
        last_result: The whole `PlanResult` of the last `solve`; None before it, and after one that
            raised.

    Raises:
        ConfigError: Neither or both of `model` and `cost` are given, or a setting is out of range.
        BundleError: The folder is not a bundle.
    """

    deadline_s = DeadlineSetting()

    def __init__(
        self,
        bundle: str | Path,
        model: Any = None,  # noqa: ANN401
        *,
        cost: Any = None,  # noqa: ANN401
        num_candidates: int = 16,
        num_inference_steps: int = 10,
        num_refinements: int = 0,
        ranked: bool = True,
        batch_size: int = 1,
        seed: int = 1234,
        deadline_s: float | None = None,
        provider: str = "auto",
        num_threads: int | None = None,
        device: str = "cpu",
        encode: Encode | None = None,
        callbacks: Sequence[Any] | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        if (model is None) == (cost is None):
            raise ConfigError("give the cost model as either model= or cost=")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1; found {batch_size}")
        self.optimizer = DDIMOptimizer.from_bundle(
            bundle,
            provider=provider,
            num_threads=num_threads,
            num_candidates=num_candidates,
            num_inference_steps=num_inference_steps,
            num_refinements=num_refinements,
            seed=seed,
            **settings,
        )
        self.model = self.cost = cost if model is None else model
        self.ranked, self.batch_size, self.deadline_s = ranked, batch_size, deadline_s
        self.device = device
        self.encode = encode or encode_last_frames
        self.callbacks = list(callbacks or ())
        self.last_result: PlanResult | None = None
        self._configuration: tuple[int, int, Any] | None = None

    def configure(self, *, action_space: Any, n_envs: int, config: Any) -> None:  # noqa: ANN401
        """Take the environments and the host's `PlanConfig`.

        Args:
            action_space: Of all environments, `(n_envs, ...)`.
            n_envs: How many there are; a call may be about fewer.
            config: Has `horizon` and `action_block`.

        Raises:
            ConfigError: The bundle makes plans of another length or width.
        """
        spec, width = self.optimizer.action_spec, math.prod(action_space.shape[1:])
        length = config.horizon * config.action_block
        if spec.num_channels != width:
            raise ConfigError(
                f"an action of this environment has {width} numbers, one of the bundle has "
                f"{spec.num_channels} ({', '.join(spec.channels)}). Train on its actions"
            )
        if spec.length != length:
            raise ConfigError(
                f"PlanConfig asks for horizon {config.horizon} x action_block "
                f"{config.action_block} = {length} actions, the bundle makes {spec.length}. Set "
                f"the horizon to {spec.length / config.action_block:g}, or train with "
                f"--sequence-length {length}"
            )
        self._configuration = n_envs, width, config

    @property
    def _configured(self) -> tuple[int, int, Any]:
        if self._configuration is None:
            raise ConfigError("call configure(action_space=..., n_envs=..., config=...) first")
        return self._configuration

    @property
    def action_dim(self) -> int:
        """D, the numbers of one world-model step."""
        _, width, config = self._configured
        return int(width * config.action_block)

    @property
    def n_envs(self) -> int:
        """Environments that were configured."""
        return self._configured[0]

    @property
    def horizon(self) -> int:
        """H, the world-model steps of a plan."""
        return int(self._configured[2].horizon)

    def __call__(self, info_dict: Info, init_action: Tensor | None = None) -> dict[str, Any]:
        """The same as `solve`; the host's policy calls the object."""
        return self.solve(info_dict, init_action)

    def solve(self, info_dict: Info, init_action: Tensor | None = None) -> dict[str, Any]:
        """Plan for every environment of the info dict.

        Args:
            info_dict: Tensors and arrays `(B, T, ...)`; B may be below `n_envs`. It is left as it
                is.
            init_action: `(B, l, D)` with l <= H, the rest of the last plan, or None.

        Returns:
            `actions`, a CPU tensor `(B, H, D)`, and `costs`, a list of B numbers (`cost` is the
            same); `planned_by`, `failures` and `stopped_because` of the `PlanResult`; and, with
            callbacks, their histories as `callbacks`.

        Raises:
            ContextError: The info dict or the warm start does not fit the bundle.
            CostError: The cost model failed.
        """
        import torch

        spec, config = self.optimizer.action_spec, self._configured[2]
        self.last_result = None
        batch = batch_of(info_dict, self.n_envs)
        with torch.inference_mode():  # not around the optimizer: `on_failure` may use gradients
            info = placed(info_dict, self.model, self.device)
            context = {}
            if self.optimizer.model.condition.inputs:
                latents = self.encode(self.model, info)
                context = wanted_context(self.optimizer, latents, HOST)
        for callback in self.callbacks:
            callback.reset()
            callback.start_batch()
        cost = self._cost(info)
        problem = PlanningProblem(
            context,
            cost if self.ranked else None,
            warm_start(init_action, spec, batch, (self.horizon, self.action_dim)),
            self.deadline_s,
            batch_size=batch,
        )
        result = self.optimizer.optimize(problem)
        cost.finish()
        actions = checked_plan(result.actions, spec, batch, HOST)
        self.last_result = result
        costs = np.asarray(result.cost, float).tolist()
        outputs: dict[str, Any] = {
            "actions": torch.tensor(actions).reshape(batch, config.horizon, self.action_dim),
            "costs": costs,
            "cost": costs,
            "planned_by": result.planned_by,
            "failures": result.failures,
            "stopped_because": result.stopped_because,
        }
        if self.callbacks:
            for callback in self.callbacks:
                callback.end_solve()
            outputs["callbacks"] = {each.output_key: each.history for each in self.callbacks}
        return outputs

    def _cost(self, info: Info) -> InfoCost:
        return InfoCost(
            self.model,
            info,
            self.device,
            self.horizon,
            self.batch_size,
            self.callbacks,
            in_slices=math.isfinite(math.inf if self.deadline_s is None else self.deadline_s),
        )
