"""VJ2-GUI: in place of gradient descent through its predictor, one block of touches a plan.

Plans in the screen's units: x and y in [0, 1], press 0 or 1, 500 actions a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.adapters import Adapter
from vj2_ddim_plugin.adapters.base import HostPlanner, RowCost, check_fit, check_shape
from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError
from vj2_ddim_plugin.interface import ActionOptimizer
from vj2_ddim_plugin.spec import ActionSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ADAPTER", "VJ2GUIPlanner"]

ADAPTER = Adapter(
    host="VJ2-GUI",
    replaces="gradient descent through its predictor",
    units="screen: x, y in [0, 1], press 0 or 1",
    usage="VJ2GUIPlanner('bundle').plan(z_context, z_goal, predictor, previous)",
    target="vj2_ddim_plugin.adapters.vj2_gui:VJ2GUIPlanner",
)
LOSSES = ("l1", "l2")
ACTION_FORMS = ("auto", "flat", "steps")
ACTION_HZ = 500.0

Predictor: TypeAlias = "Callable[[Tensor, Tensor], Any]"
Former: TypeAlias = "Callable[[Tensor], Tensor]"
"""Blocks `[n, T, 250, 3]` to what a predictor takes."""

logger = logging.getLogger(__name__)


class VJ2GUIPlanner(HostPlanner):
    """Plans touches whose predicted outcome is closest to a goal screen.

    Args:
        optimizer: A bundle's folder, or any `ActionOptimizer` with an `action_spec`.
        loss: `l1` or `l2`, the mean absolute or squared difference of the last state to the goal.
        layer_norm: Whether the predictor wants layer-normed latents, as VJ2-GUI trains it.
        layer_norm_context: Whether the bundle wants them too; it does when it was trained on
            embeddings that were layer-normed on disk. VJ2-GUI's own files are not. None: as the
            bundle recorded of its training data (`layer_normed`), no where it did not. What it
            recorded is kept to: yes is refused where it says no, and with no its latents must come
            layer-normed where it says yes.
        action_form: What the predictor takes: `flat` `[B, T, 750]`, `steps` `[B, T, 250, 3]` (its
            FiLM variants), or `auto`: the predictor's own `actions_formatter` if it has one,
            `flat` if it says how many numbers a block it takes, an error otherwise.
        horizon: Blocks to plan; None is all the optimizer makes.
        action_hz: Actions a second, for `timestamps`.
        **settings: Of `HostPlanner` (`deadline_s`, `seed`, `rows_per_chunk`) and of the bundle.

    Raises:
        ConfigError: A setting is unknown.
        ActionError: The horizon is longer than the optimizer's plans.
    """

    host = "VJ2-GUI"

    def __init__(
        self,
        optimizer: ActionOptimizer | Path | str,
        *,
        loss: str = "l1",
        layer_norm: bool = True,
        layer_norm_context: bool | None = None,
        action_form: str = "auto",
        horizon: int | None = None,
        action_hz: float = ACTION_HZ,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        if loss not in LOSSES or action_form not in ACTION_FORMS:
            raise ConfigError(
                f"loss must be one of {LOSSES}, action_form one of {ACTION_FORMS}; found {loss!r} "
                f"and {action_form!r}"
            )
        super().__init__(optimizer, **{"rows_per_chunk": 16, **settings})
        spec = self.action_spec
        self.horizon = spec.horizon if horizon is None else horizon
        width = spec.action_block * spec.num_channels
        check_fit(spec, horizon=self.horizon, action_dim=width, host=self.host)
        self.loss, self.action_form, self.action_hz = loss, action_form, action_hz
        recorded = self.provenance.get("layer_normed")
        if layer_norm_context is None:
            layer_norm_context = bool(recorded)
        if layer_norm_context and recorded is False:
            raise ConfigError(
                "layer_norm_context=True, and the bundle recorded that it was trained on latents "
                "that were not layer-normed; leave it out"
            )
        self._comes_normed = bool(recorded) and not layer_norm_context
        self.layer_norm, self.layer_norm_context = layer_norm, layer_norm_context
        self.planning_time_s = 0.0

    def plan(
        self,
        z_context: Tensor,
        z_goal: Tensor,
        predictor: Predictor,
        previous: Tensor | None = None,
        *,
        past_actions: Tensor | None = None,
    ) -> Tensor:
        """Plan `horizon` blocks of touches.

        Args:
            z_context: Latents `[B, T, N, D]` of the last T >= 1 states. The predictor sees T states
                at every step of the rollout: its own predictions push the oldest out.
            z_goal: Latents `[B, N, D]` or `[B, 1, N, D]` of the goal.
            predictor: `(z [n, T, N, D], actions) -> z`, or `-> (mu, b)`, of which mu is ranked.
            previous: `[B, l, A]`, a plan to start from, already shifted to now: candidate 0.
            past_actions: `[B, T - 1, 250, 3]`, the blocks between the states of `z_context`; None
                is no touch.

        Returns:
            All planned actions, `[B, horizon * 250, 3]`, of `z_context`'s device and dtype.

        Raises:
            ContextError: A tensor, or what the predictor returns, is of the wrong shape or NaN.
            ActionError: The predictor takes blocks of another size, or the plan is no plan.
            ConfigError: `action_form` is `auto` and the predictor does not say what it takes.
        """
        self._begin()
        z_goal, past = self._checked(z_context, z_goal, past_actions)
        context = {"state": z_context[:, -1], "goal": z_goal}
        for name, z in context.items() if self._comes_normed else ():
            _require_normed(name, z)
        actions = self._optimize(
            {name: _normed(z, self.layer_norm_context) for name, z in context.items()},
            self._cost(z_context, z_goal, past, predictor),
            like=z_context,
            length=self.horizon * self.action_spec.action_block,
            init_action=previous,
        )
        self.planning_time_s = time.perf_counter() - self._begun
        return actions

    def timestamps(self, start_s: float, *, adjust: bool = False) -> NDArray[np.float64]:
        """When to send each action of the last plan, `[horizon * 250]`.

        Args:
            start_s: When its first state was seen, seconds.
            adjust: Whether to shift all by the time planning took (`ADJUST_PLANNER_TIMESTAMPS`).
        """
        steps = np.arange(self.horizon * self.action_spec.action_block) / self.action_hz
        return start_s + steps + (self.planning_time_s if adjust else 0.0)

    def _cost(
        self, z_context: Tensor, z_goal: Tensor, past: Tensor, predictor: Predictor
    ) -> RowCost:
        """The distance of the last predicted state to the goal."""
        import torch

        spec, form = self.action_spec, action_former(predictor, self.action_form, self.action_spec)
        if getattr(predictor, "training", False):
            logger.warning("the predictor is in training mode, its costs are noisy; call eval()")
        states, goal = (_normed(z, self.layer_norm) for z in (z_context, z_goal))

        def cost(rows: Tensor, actions: Tensor) -> Tensor:
            blocks = actions.reshape(len(rows), -1, spec.action_block, spec.num_channels)
            last = rollout(predictor, form, states[rows], torch.cat([past[rows], blocks], dim=1))
            difference = last.float() - goal[rows].float()
            size = difference.abs() if self.loss == "l1" else difference.square()
            return size.mean(dim=(-2, -1))

        return cost

    def _checked(
        self, z_context: Tensor, z_goal: Tensor, past_actions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The goal as `[B, N, D]`, and the blocks between the states, `[B, T - 1, 250, 3]`."""
        if z_context.ndim != 4 or 0 in z_context.shape:
            found = list(z_context.shape)
            raise ContextError(f"z_context has shape {found}; expected [B, T, N, D]")
        batch, num_states, num_tokens, width = z_context.shape
        if z_goal.ndim == 4:
            check_shape("z_goal", z_goal.shape, (batch, 1, num_tokens, width), "[B, 1, N, D]")
            z_goal = z_goal[:, 0]
        check_shape("z_goal", z_goal.shape, (batch, num_tokens, width), "[B, N, D]")
        spec = self.action_spec
        expected = (batch, num_states - 1, spec.action_block, spec.num_channels)
        past = z_context.new_zeros(expected) if past_actions is None else past_actions
        check_shape("past_actions", past.shape, expected, "[B, T - 1, block, A]")
        return z_goal.to(z_context), past.to(z_context)


def _normed(z: Tensor, wanted: bool) -> Tensor:
    from torch.nn.functional import layer_norm

    return layer_norm(z, z.shape[-1:]) if wanted else z


def _require_normed(name: str, z: Tensor) -> None:
    mean, std = z.float().mean(dim=-1), z.float().std(dim=-1, correction=0)
    if float(mean.abs().median()) > 0.1 or float((std - 1.0).abs().median()) > 0.1:
        raise ContextError(
            f"{name} is not layer-normed (a token's mean is {float(mean.median()):.3g}, its std "
            f"{float(std.median()):.3g}), and the bundle was trained on latents that were. Leave "
            f"layer_norm_context=False out"
        )


def rollout(predictor: Predictor, form: Former, states: Tensor, sent: Tensor) -> Tensor:
    """The state `[n, N, D]` that n candidates lead to, each step seeing the last T states.

    `sent` are the T - 1 blocks `[250, 3]` between the states `[n, T, N, D]`, then the candidates'.
    """
    import torch

    window = states.shape[1]
    for step in range(sent.shape[1] - window + 1):
        seen = sent[:, step : step + window].contiguous()  # predictors take views of it
        predicted = predictor(states, form(seen))
        predicted = predicted[0] if isinstance(predicted, tuple) else predicted
        check_shape("the predictor's output", predicted.shape, states.shape, "[n, T, N, D]")
        states = torch.cat([states[:, 1:], predicted[:, -1:]], dim=1)
    return states[:, -1]


def action_former(predictor: object, form: str, spec: ActionSpec) -> Former:
    """How to hand blocks `[n, T, 250, 3]` to a predictor; see `VJ2GUIPlanner`."""
    module = getattr(predictor, "module", predictor)  # as wrapped for several GPUs
    if form == "auto":
        own: Former | None = getattr(module, "actions_formatter", None)
        if own is not None:
            return own
        linear = getattr(module, "action_encoder", None)
        wanted = getattr(module, "action_embed_dim", getattr(linear, "in_features", None))
        width = spec.action_block * spec.num_channels
        if wanted is None:
            raise ConfigError(
                f"{type(module).__name__} does not say which form of actions it takes. Set "
                f"action_form='flat' for [B, T, {width}], or 'steps' for [B, T, "
                f"{spec.action_block}, {spec.num_channels}]"
            )
        if wanted != width:
            raise ActionError(
                f"the predictor takes {wanted} numbers a block, the optimizer makes {width} "
                f"({spec.action_block} x {spec.num_channels}). Train on this predictor's actions"
            )
    return (lambda blocks: blocks) if form == "steps" else (lambda blocks: blocks.flatten(2))
