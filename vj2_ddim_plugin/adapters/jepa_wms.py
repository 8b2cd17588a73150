"""jepa-wms: in place of the planner of its `GC_Agent`.

Plans in jepa-wms' units: what its world model takes, `frameskip` actions packed into one step,
normalized wherever its evaluation has a preprocessor (it denormalizes what it executes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vj2_ddim_plugin.adapters import Adapter
from vj2_ddim_plugin.adapters.base import HostPlanner, check_fit, host_settings
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ADAPTER", "JEPAWMsPlanner", "PlanningResult"]

ADAPTER = Adapter(
    host="jepa-wms",
    replaces="the planner of its GC_Agent",
    units="normalized, frameskip actions a step",
    usage="agent.planner = JEPAWMsPlanner.for_agent(agent, 'bundle')",
    target="vj2_ddim_plugin.adapters.jepa_wms:JEPAWMsPlanner",
)

MAX_NORM_DIMS = ((0, 1, 2), (6,))  # of the host's planners, used only with `max_norms`


class PlanningResult(NamedTuple):
    """The host's result, field for field."""

    actions: Tensor  # [T, A], the first `num_act_stepped` of the plan
    losses: Tensor  # [it, 1], best cost after each round
    prev_elite_losses_mean: Tensor  # the same: there are no elites
    prev_elite_losses_std: Tensor  # zeros
    info: dict[str, Any] | None  # not used by the host, nor is the next
    plan_metrics: dict[str, Any] | None
    pred_frames_over_iterations: list[Any] | None  # the plan's, decoded, if asked for
    predicted_best_encs_over_iterations: list[Any]  # the plan's latents


class JEPAWMsPlanner(HostPlanner):
    """A planner for `GC_Agent`, which is given the agent's own planner configuration.

    Args:
        optimizer: A bundle's folder, or any `ActionOptimizer` with an `action_spec`.
        unroll: `(z_init, actions [T, n, A]) -> latents [T + tau, n, ...]`.
        action_dim: A, numbers the world model takes a step.
        horizon: Steps to plan; None is all the optimizer makes.
        num_act_stepped: Steps to hand back; None is all that are planned.
        iterations: Rows of `losses`, padded with the last, so that the host can stack them; None
            is as many as there were rounds.
        max_norms: The largest size of each group of `max_norm_dims`; plans are clipped to it, and
            what is ranked is what is clipped.
        max_norm_dims: Groups of channels.
        decode_each_iteration: Whether the result holds decoded frames.
        decode_unroll: Decodes latents to frames.
        warm_start: Whether what was not executed of the last plan is candidate 0 of the next;
            `set_objective` forgets it.
        settings: Of `DDIMOptimizer.from_bundle`, for example `num_candidates`.
        **others: `deadline_s`, `seed` and `rows_per_chunk` of `HostPlanner`. Settings of the
            planner that this one replaces may stay; they are logged.

    Raises:
        ActionError: The sizes do not fit the optimizer's `ActionSpec`.
        ConfigError: A setting is out of range, or belongs in `settings`.
    """

    host = "jepa-wms"

    def __init__(
        self,
        optimizer: ActionOptimizer | Path | str,
        unroll: Callable[..., Any],
        action_dim: int,
        *,
        horizon: int | None = None,
        num_act_stepped: int | None = None,
        iterations: int | None = None,
        max_norms: Sequence[float] | None = None,
        max_norm_dims: Sequence[Sequence[int]] = MAX_NORM_DIMS,
        decode_each_iteration: bool = False,
        decode_unroll: Callable[[Any], Any] | None = None,
        warm_start: bool = False,
        settings: Mapping[str, Any] | None = None,
        **others: Any,  # noqa: ANN401
    ) -> None:
        import torch

        super().__init__(optimizer, **host_settings(type(self).__name__, others), **settings or {})
        self.unroll, self.action_dim, self.warm_start = unroll, action_dim, warm_start
        self.horizon = self.action_spec.horizon if horizon is None else horizon
        check_fit(self.action_spec, horizon=self.horizon, action_dim=action_dim, host=self.host)
        self.num_act_stepped, self.iterations = num_act_stepped, iterations
        self.decode_each_iteration, self.decode_unroll = decode_each_iteration, decode_unroll
        self.limit = torch.full((action_dim,), torch.inf)
        for size, dims in zip(max_norms or (), max_norm_dims, strict=False):
            if not all(-action_dim <= index < action_dim for index in dims):
                raise ConfigError(
                    f"max_norm_dims has {list(dims)}, but a step has {action_dim} numbers. Set "
                    f"max_norm_dims to groups of these, as max_norms has sizes"
                )
            self.limit[list(dims)] = self.limit[list(dims)].clamp(max=size)
        self.objective: Callable[[Any, Tensor], Tensor] | None = None
        self._rest: Tensor | None = None

    @classmethod
    def for_agent(
        cls,
        agent: Any,  # noqa: ANN401
        optimizer: ActionOptimizer | Path | str | None = None,
        **changes: Any,  # noqa: ANN401
    ) -> JEPAWMsPlanner:
        """The planner for a `GC_Agent` that is made, with the settings of its `cfg.planner`.

        Args:
            agent: The host's agent; its model, its configuration and its objective are used.
            optimizer: As for the constructor; None takes `optimizer` of `cfg.planner`.
            **changes: Arguments of the constructor that differ from `cfg.planner`.

        Raises:
            ConfigError: No optimizer is named, or as for the constructor.
            ActionError: As for the constructor.
        """
        own = {"decode_unroll": agent.model.decode_unroll, **agent.cfg.planner, **changes}
        named = own.pop("optimizer", None)
        if (optimizer := named if optimizer is None else optimizer) is None:
            raise ConfigError(
                "no bundle is named: give one as for_agent(agent, 'bundle'), or as 'optimizer' in "
                "the agent's cfg.planner"
            )
        planner = cls(optimizer, agent.model.unroll, agent.model.action_dim, **own)
        if (objective := getattr(getattr(agent, "planner", None), "objective", None)) is not None:
            planner.set_objective(objective)
        return planner

    def set_objective(self, objective: Callable[[Any, Tensor], Tensor]) -> None:
        """Set what to minimise, `(latents, actions [T, n, A]) -> [n]`; a new goal begins."""
        self.objective, self._rest = objective, None

    def plan(self, z_init: Any, steps_left: int | None = None) -> PlanningResult:  # noqa: ANN401
        """Plan from one state.

        Args:
            z_init: Latents `[1, tau, ...]`, or a mapping with such under `visual`.
            steps_left: Steps that remain of the episode, at least 1; the plan is no longer.

        Returns:
            The plan's beginning, float32 on the latents' device, and what the host logs.

        Raises:
            ConfigError: There is no objective yet.
            ActionError: The plan is no plan.
            ContextError: The latents, the warm start or the cost are of no use.
        """
        import torch

        self._begin()
        objective = self.objective
        if objective is None:
            raise ConfigError("jepa-wms has set no objective; call set_objective before plan")
        steps = self.horizon if steps_left is None else max(1, min(self.horizon, steps_left))

        def cost(rows: Tensor, actions: Tensor) -> Tensor:
            candidates = self._as_host(actions)
            return objective(self.unroll(z_init, candidates), candidates)

        target = getattr(objective, "target_enc", None)
        latents = {"state": z_init} if target is None else {"state": z_init, "goal": target}
        planned = self._optimize(
            {name: _visual(z)[:, -1].flatten(1, -2) for name, z in latents.items()},
            cost,
            like=torch.empty(0, device=_visual(z_init).device),
            length=steps * self.action_spec.action_block,
            init_action=self._rest,
            limit=lambda actions: self._in_actions(self._as_host(actions).transpose(0, 1)),
        )
        stepped, chosen = min(self.num_act_stepped or steps, steps), self._as_host(planned)
        rest = self._in_actions(chosen[stepped:].transpose(0, 1))
        self._rest = self._in_bounds(rest) if self.warm_start else None
        return self._result(z_init, chosen, stepped)

    def _as_host(self, actions: Tensor) -> Tensor:
        """`[n, l, A]` of the optimizer as the host's `[T, n, A]`, within `max_norms`."""
        limit = self.limit.to(actions.device)
        return self._in_blocks(actions).clamp(-limit, limit).transpose(0, 1).contiguous()

    def _result(self, z_init: Any, chosen: Tensor, stepped: int) -> PlanningResult:  # noqa: ANN401
        import torch

        with torch.no_grad():
            latents = self.unroll(z_init, chosen)
            decode = self.decode_unroll if self.decode_each_iteration else None
            frames = None if decode is None else [decode(latents)]
        losses = torch.as_tensor(self._losses())[:, None]
        none, actions = torch.zeros_like(losses), chosen[:stepped, 0].contiguous()
        return PlanningResult(actions, losses, losses.clone(), none, None, None, frames, [latents])

    def _losses(self) -> FloatArray:
        """Best cost after each round, in as many rows as the host expects; the last is final."""
        if (result := self.last_result) is None:
            return np.zeros(0, np.float32)
        history = result.history[:, 0]
        rows = len(history) if self.iterations is None else self.iterations
        padded = np.concatenate([history[: max(0, rows - 1)], np.repeat(result.cost[:1], rows)])
        return padded[:rows].astype(np.float32)


def _visual(latents: Any) -> Any:  # noqa: ANN401
    """The visual latents `[B, tau, ..., D]`, alone or among others."""
    return latents["visual"] if isinstance(latents, Mapping) else latents
