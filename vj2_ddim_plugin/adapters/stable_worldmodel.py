"""A solver for stable-worldmodel: its published layout (0.1.1) and the newer one.

```yaml
solver:
  _target_: vj2_ddim_plugin.adapters.stable_worldmodel.StableWorldModelSolver
  bundle: path/to/bundle
```

**Units.** As the host, it plans in actions normalized by its policy's `process["action"]`: the
bundle must have been trained on these, and its bounds are the environment's, normalized.

**Shapes.** B problems, N candidates, H world-model steps of `action_block` actions with A channels:
the host's `(B, H, D)` has D = action_block * A, the bundle's `[B, L, A]` L = H * action_block.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vj2_ddim_plugin.adapters import Adapter
from vj2_ddim_plugin.adapters.base import (
    OPTIMIZER_SETTINGS,
    THEIRS,
    HostPlanner,
    checked_init_action,
    inputs_of,
    load_optimizer,
    wanted_context,
    warn_unused,
)
from vj2_ddim_plugin.errors import ConfigError, ContextError, CostError
from vj2_ddim_plugin.interface import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ADAPTER", "StableWorldModelSolver"]

ADAPTER = Adapter(
    host="stable-worldmodel",
    replaces="its solvers (CEM, iCEM, MPPI, gradient)",
    units="normalized, as its policy does",
    usage="_target_: vj2_ddim_plugin.adapters.stable_worldmodel.StableWorldModelSolver",
    target="vj2_ddim_plugin.adapters.stable_worldmodel:StableWorldModelSolver",
    package="stable_worldmodel",
)

logger = logging.getLogger(__name__)

Info: TypeAlias = Mapping[str, Any]
Encode: TypeAlias = "Callable[[Any, Info], Mapping[str, Tensor]]"
"""From the host's cost model and info dict, the bundle's context arrays `[B, ...]` by name."""


class StableWorldModelSolver(HostPlanner):
    """The host's `Solver` protocol, with a `DDIMOptimizer` behind it.

    Args:
        bundle: The bundle's folder, or the address of a served one; a relative path starts where
            the program did.
        model: The cost model, as 0.1.1 passes it.
        cost: The same, as the newer layout passes it.
        ranked: Whether the host's cost is asked at all; without it the one sample is the plan, and
            its cost is NaN.
        batch_size: Environments in one call of the host's cost. 1 is the host's own default, and
            the only number with which LeWM's own cost of 0.1.1 is right; `GoalMSE` is with any.
        seed: The same seed gives the same plan for the same problem.
        deadline_s: Seconds that one `solve` may take after the encoding, or None.
        device: Where the cost model is; None asks its weights.
        encode: The latents; `encode_last_frames` suits models with LeWM's or PreJEPA's `encode`.
        callbacks: The host's callbacks, called once a round with `step`, `candidates (B, N, H, D)`
            and `costs (B, N)`, and no more: recorders of elites or gradients find none here. With a
            deadline, once a `solve`, with all that was ranked: a round is then ranked in slices.
        settings: Of `DDIMOptimizer.from_bundle`, for example `num_candidates`.
        **others: The same, one by one, but for `temperature`, which is MPPI's here. Settings of the
            solver that this one replaces may stay; they are logged.

    Raises:
        ConfigError: Neither or both of `model` and `cost` are given, or a setting is out of range.
        BundleError: The folder is not a bundle.
    """

    host = "stable-worldmodel"

    def __init__(
        self,
        bundle: str | Path,
        model: Any = None,  # noqa: ANN401
        *,
        cost: Any = None,  # noqa: ANN401
        ranked: bool = True,
        batch_size: int = 1,
        seed: int = 1234,
        deadline_s: float | None = None,
        device: str | None = None,
        encode: Encode | None = None,
        callbacks: Sequence[Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        **others: Any,  # noqa: ANN401
    ) -> None:
        if (model is None) == (cost is None):
            raise ConfigError("give the cost model as either model= or cost=")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1; found {batch_size}")
        own = {name: others.pop(name) for name in OPTIMIZER_SETTINGS - THEIRS if name in others}
        warn_unused(type(self).__name__, others)
        optimizer = load_optimizer(bundle, **{"seed": seed, **own, **(settings or {})})
        super().__init__(optimizer, deadline_s=deadline_s)
        self.model = self.cost = cost if model is None else model
        if hasattr(self.model, "get_constraints"):
            logger.warning(
                "%s has constraints (get_constraints), which %s does not keep: it ranks by the "
                "cost alone. Add them to the cost as a penalty, or keep the host's solver",
                *(type(self.model).__name__, type(self).__name__),
            )
        self.ranked, self.batch_size = ranked, batch_size
        self.device = device or weights_of(self.model)[1]
        self.encode = encode or encode_last_frames
        self.callbacks = list(callbacks or ())
        self._configuration: dict[str, int] = {}

    def configure(self, *, action_space: Any, n_envs: int, config: Any) -> None:  # noqa: ANN401
        """Take the environments and the host's `PlanConfig`.

        Args:
            action_space: Of all environments, `(n_envs, ...)`.
            n_envs: How many there are; a call may be about fewer.
            config: Has `horizon` and `action_block`.

        Raises:
            ConfigError: The bundle makes plans of another length or width.
        """
        spec, width = self.action_spec, math.prod(action_space.shape[1:])
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
                f"horizon {config.horizon} and action_block {config.action_block}"
            )
        block, horizon = int(config.action_block), int(config.horizon)
        self._configuration = {"n_envs": n_envs, "horizon": horizon, "action_dim": width * block}

    @property
    def action_dim(self) -> int:
        """D, the numbers of one world-model step."""
        return self._configured("action_dim")

    @property
    def n_envs(self) -> int:
        """Environments that were configured."""
        return self._configured("n_envs")

    @property
    def horizon(self) -> int:
        """H, the world-model steps of a plan."""
        return self._configured("horizon")

    def _configured(self, name: str) -> int:
        if not self._configuration:
            raise ConfigError("call configure(action_space=..., n_envs=..., config=...) first")
        return self._configuration[name]

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

        self._begin()
        batch = batch_of(info_dict, self.n_envs)
        with torch.inference_mode():  # not around the optimizer: `on_failure` may use gradients
            info = placed(info_dict, self.model, self.device)
            context = {}
            if inputs_of(self.optimizer) != {}:
                latents = self.encode(self.model, info)
                context = wanted_context(self.optimizer, latents, self.host)
        for callback in self.callbacks:
            callback.reset()
            callback.start_batch()
        cost = InfoCost(self, info)
        start = self._warm_start("init_action", init_action, self.action_dim)
        warm = None if start is None else checked_init_action(start, self.action_spec, batch)
        self._begin()
        actions = self._plan(context, cost if self.ranked else None, warm, batch)
        cost.finish()
        blocks = torch.tensor(actions).reshape(batch, self.horizon, self.action_dim)
        return {"actions": blocks, **self._outputs()}

    def _outputs(self) -> dict[str, Any]:
        """What the host logs of the last plan."""
        if (result := self.last_result) is None:
            return {}
        costs = np.asarray(result.cost, float).tolist()
        outputs: dict[str, Any] = {"costs": costs, "cost": costs}
        for name in ("planned_by", "failures", "stopped_because"):
            outputs[name] = getattr(result, name)
        for callback in self.callbacks:
            callback.end_solve()
            outputs.setdefault("callbacks", {})[callback.output_key] = callback.history
        return outputs


def encode_last_frames(model: Any, info: Info) -> dict[str, Tensor]:  # noqa: ANN401
    """`state` and `goal`: what LeWM's or PreJEPA's `encode` makes of the last `pixels` and `goal`.

    The model, or what it holds as `model` (the newer layout's cost), has `encode(info) -> info`
    with `emb` `[B, T, D]`, as LeWM, to `[B, 1, D]`; or `[B, T, P, D]`, as PreJEPA, to `[B, P, D]`,
    its patches without what it fuses with them. The info dict has both `[B, T, C, H, W]`.
    """
    import torch

    encoder: Any = model if hasattr(model, "encode") else getattr(model, "model", None)
    if not hasattr(encoder, "encode"):
        raise ConfigError(
            f"{type(model).__name__} has no method 'encode', so its latents are not known; pass "
            f"encode=, a function (model, info_dict) -> {{'state': [B, N, D], 'goal': [B, N, D]}}"
        )
    missing = [key for key in ("pixels", "goal") if key not in info]
    if missing:
        raise ContextError(f"the info dict has no {missing}, only {sorted(info)}")
    frames = torch.cat([info["pixels"][:, -1:], info["goal"][:, -1:]])
    alone: dict[str, Any] = {"emb_keys": []} if getattr(encoder, "extra_encoders", None) else {}
    try:
        emb = encoder.encode({"pixels": frames}, **alone)["emb"]
    except (KeyError, TypeError) as error:
        raise ContextError(
            f"{type(encoder).__name__}.encode does not encode pictures alone "
            f"({type(error).__name__}: {error}); pass encode=, a function (model, info_dict) -> "
            f"{{'state': [B, N, D], 'goal': [B, N, D]}}"
        ) from error
    state, goal = (emb[:, -1:] if emb.ndim == 3 else emb[:, -1]).chunk(2)
    return {"state": state, "goal": goal}


def batch_of(info: Info, num_envs: int) -> int:
    """B, of the first tensor or array in an info dict, or of the first list; or else `num_envs`."""
    arrays = [len(value) for value in info.values() if _has_rows(value)]
    lists = [len(value) for value in info.values() if isinstance(value, list)]
    batch = [*arrays, *lists, num_envs][0]
    if batch < 1:
        found = {
            name: str(tuple(value.shape)) if hasattr(value, "shape") else type(value).__name__
            for name, value in info.items()
        }
        raise ContextError(
            f"the info dict needs tensors or arrays (B, T, ...) with B at least 1; found {found}"
        )
    return batch


def _has_rows(value: Any) -> bool:  # noqa: ANN401
    """Whether a value is a tensor or an array with one entry a problem."""
    import torch

    return isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 0


def weights_of(model: Any) -> tuple[Any, str]:  # noqa: ANN401
    """The dtype and the device of a model's weights; float32 on the CPU where it has none."""
    import torch

    weights = getattr(model, "parameters", lambda: ())()
    return next(((one.dtype, str(one.device)) for one in weights), (torch.float32, "cpu"))


def placed(info: Info, model: Any, device: str) -> dict[str, Any]:  # noqa: ANN401
    """A copy with tensors on `device`, floating ones in the dtype of the model's weights."""
    import torch

    dtype, _ = weights_of(model)

    def place(value: Any) -> Any:  # noqa: ANN401
        if not torch.is_tensor(value):
            return value
        return value.to(device, dtype if value.is_floating_point() else value.dtype)

    return {key: place(value) for key, value in info.items()}


class InfoCost:
    """The cost model of a solver as a `CostFn`, for the problems of one info dict.

    Under a deadline a call may be about a part of a round, and nothing says which: the callbacks
    then hear of all that was ranked at once, in `finish`.
    """

    def __init__(self, solver: StableWorldModelSolver, info: Info) -> None:
        self.solver, self.info, self.num_rounds = solver, info, 0
        self.in_slices = solver.deadline_s is not None and math.isfinite(solver.deadline_s)
        self._ranked: list[tuple[Tensor, Tensor]] = []

    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """`[B, N, L, A]` to `[B, N]`; `CostError` where the model returns something else."""
        import torch

        solver, (batch, count) = self.solver, candidates.shape[:2]
        shaped = torch.from_numpy(candidates.reshape(batch, count, solver.horizon, -1))
        blocks = placed({"candidates": shaped}, solver.model, solver.device)["candidates"]
        with torch.inference_mode():
            starts = range(0, batch, solver.batch_size)
            parts = zip(starts, blocks.split(solver.batch_size), strict=True)
            costs = torch.cat([self._of_some(start, part) for start, part in parts])
        if solver.callbacks:
            self._ranked.append((blocks, costs))
        if not self.in_slices:
            self.finish()
        return np.asarray(costs.float().cpu().numpy())

    def finish(self) -> None:
        """Call the callbacks with what they have not heard of yet."""
        import torch

        if not self._ranked:
            return
        with torch.inference_mode():
            blocks, costs = (torch.cat(parts, dim=1) for parts in zip(*self._ranked, strict=True))
            self._ranked.clear()
            for callback in self.solver.callbacks:
                try:
                    callback(step=self.num_rounds, candidates=blocks, costs=costs)
                except KeyError as error:
                    raise ConfigError(
                        f"{type(callback).__name__} reads {error}, which this solver does not "
                        f"have; it tells step, candidates and costs"
                    ) from error
        self.num_rounds += 1

    def _of_some(self, start: int, blocks: Tensor) -> Tensor:
        """`(b, N)` of the problems from `start` on, on a fresh copy: the model writes into it."""
        import torch

        size, count = blocks.shape[:2]
        expanded = {}
        for key, value in self.info.items():
            by_problem = _has_rows(value) or isinstance(value, list | tuple)
            rows = value[start : start + size] if by_problem else value
            if torch.is_tensor(rows) and rows.ndim:
                rows = rows.unsqueeze(1).expand(size, count, *rows.shape[1:])
            elif isinstance(rows, np.ndarray) and rows.ndim:
                rows = np.repeat(rows[:, None], count, axis=1)
            expanded[key] = rows
        costs = self.solver.model.get_cost(expanded, blocks)
        if not torch.is_tensor(costs) or tuple(costs.shape) != (size, count):
            found = tuple(getattr(costs, "shape", ())) or type(costs).__name__
            raise CostError(
                f"{type(self.solver.model).__name__}.get_cost returned {found} for candidates "
                f"{tuple(blocks.shape)}; expected a tensor ({size}, {count})"
            )
        return costs
