"""DINO-WM: in place of its CEM or gradient descent planner, alone or inside its MPC planner.

Plans in DINO-WM's units: actions normalized by its dataset's mean and std, `frameskip` of them
packed into one world-model step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.adapters import Adapter
from vj2_ddim_plugin.adapters.base import HostPlanner, check_fit, host_settings
from vj2_ddim_plugin.interface import ActionOptimizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ADAPTER", "DINOWMPlanner"]

ADAPTER = Adapter(
    host="DINO-WM",
    replaces="planning.cem.CEMPlanner, planning.gd.GDPlanner",
    units="normalized by its preprocessor, frameskip actions a step",
    usage="_target_: vj2_ddim_plugin.adapters.dino_wm.DINOWMPlanner",
    target="vj2_ddim_plugin.adapters.dino_wm:DINOWMPlanner",
)


class DINOWMPlanner(HostPlanner):
    """A planner for DINO-WM's `plan.py`, made by its Hydra configuration.

    Args:
        optimizer: A bundle's folder, or any `ActionOptimizer` with an `action_spec`.
        wm: The world model: `encode_obs(obs)`, `rollout(obs_0=, act=)`.
        action_dim: Numbers the world model takes a step (environment's times frameskip).
        objective_fn: `(z_obs_pred, z_obs_tgt) -> [n]`.
        preprocessor: `transform_obs(obs)`.
        horizon: World-model steps to plan; None is all the optimizer makes. `plan.py` sets it.
        evaluator: Kept for the host; never asked, so the plan does not see the true environment.
        wandb_run: Logs the best cost after each round, or None.
        logging_prefix: Of what is logged; the MPC planner sets it.
        log_filename: Kept for the host.
        settings: Of `DDIMOptimizer.from_bundle`, for example `num_candidates`.
        **others: `deadline_s`, `seed` and `rows_per_chunk` of `HostPlanner`. Settings of the
            planner that this one replaces may stay; they are logged.

    Raises:
        ActionError: The optimizer makes actions of another width.
        ConfigError: A setting is out of range, or belongs in `settings`.
    """

    host = "DINO-WM"

    def __init__(
        self,
        optimizer: ActionOptimizer | Path | str,
        wm: Any,  # noqa: ANN401
        action_dim: int,
        objective_fn: Callable[[Any, Any], Tensor],
        preprocessor: Any,  # noqa: ANN401
        *,
        horizon: int | None = None,
        evaluator: Any = None,  # noqa: ANN401
        wandb_run: Any = None,  # noqa: ANN401
        logging_prefix: str = "plan_0",
        log_filename: str | None = None,
        settings: Mapping[str, Any] | None = None,
        **others: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(optimizer, **host_settings(type(self).__name__, others), **settings or {})
        self.wm, self.action_dim, self.objective_fn = wm, action_dim, objective_fn
        self.preprocessor, self.evaluator, self.wandb_run = preprocessor, evaluator, wandb_run
        self.logging_prefix, self.log_filename = logging_prefix, log_filename
        self.horizon = self.action_spec.horizon if horizon is None else horizon
        check_fit(self.action_spec, horizon=None, action_dim=action_dim, host=self.host)

    def plan(
        self, obs_0: Mapping[str, Any], obs_g: Mapping[str, Any], actions: Tensor | None = None
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Plan `horizon` world-model steps.

        Args:
            obs_0: What is seen, `{"visual": [B, 1, H, W, C], "proprio": [B, 1, P]}`.
            obs_g: What should be seen.
            actions: `[B, t, action_dim]` with t <= horizon, normalized: the rest of the last plan,
                candidate 0. None or t = 0 when there is none.

        Returns:
            Normalized actions `[B, horizon, action_dim]`, float32, on the world model's device;
            and how many of them count, infinity for all.

        Raises:
            ActionError: The horizon does not fit, or the plan is no plan.
            ContextError: The observations, the warm start or the cost are of no use.
        """
        import torch

        self._begin()
        spec = self.action_spec
        check_fit(spec, horizon=self.horizon, action_dim=self.action_dim, host=self.host)
        device = next(self.wm.parameters()).device
        with torch.inference_mode():
            start, target = (self._tensors(obs, device) for obs in (obs_0, obs_g))
            z_start, z_goal = self.wm.encode_obs(start), self.wm.encode_obs(target)

        def cost(rows: Tensor, candidates: Tensor) -> Tensor:
            z_obses, _ = self.wm.rollout(obs_0=_at(start, rows), act=self._in_blocks(candidates))
            return self.objective_fn(z_obses, _at(z_goal, rows))

        planned = self._optimize(
            {"state": z_start["visual"][:, -1], "goal": z_goal["visual"][:, -1]},
            cost,
            like=torch.empty(0, device=device),
            length=self.horizon * spec.action_block,
            init_action=self._warm_start("the warm start", actions, self.action_dim),
        )
        if self.wandb_run is not None and self.last_result is not None:
            name = f"{self.logging_prefix}/loss"
            for step, best in enumerate(self.last_result.history, start=1):
                self.wandb_run.log({name: float(best.mean()), "step": step})
        return self._in_blocks(planned), np.full(len(planned), np.inf)

    def _tensors(self, obs: Mapping[str, Any], device: Any) -> dict[str, Tensor]:  # noqa: ANN401
        transformed = self.preprocessor.transform_obs(obs)
        return {name: values.to(device) for name, values in transformed.items()}


def _at(values: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Named tensors of the problems numbered `[n]`."""
    return {name: tensor[rows] for name, tensor in values.items()}
