"""How VJ2-GUI's predictors are called: two forms of actions, several states, one or two outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.adapters.checks import check_shape
from vj2_ddim_plugin.errors import ActionError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ACTION_FORMS", "action_former", "rollout"]

Former: TypeAlias = "Callable[[Tensor], Tensor]"
ACTION_FORMS = ("auto", "flat", "steps")


def rollout(
    predictor: Callable[[Tensor, Tensor], Any],
    form: Former,
    states: Tensor,
    past: Tensor,
    blocks: Tensor,
) -> Tensor:
    """The state that n candidates lead to, each step seeing the last T states and their blocks.

    Args:
        predictor: `(z [n, T, N, D], actions) -> z`, or `-> (mu, b)`.
        form: Blocks `[n, T, 250, 3]` to what the predictor takes.
        states: `[n, T, N, D]`.
        past: `[n, T - 1, 250, 3]`, the blocks between them.
        blocks: `[n, horizon, 250, 3]`, the candidates.

    Returns:
        `[n, N, D]`.

    Raises:
        ContextError: The predictor returned another shape.
    """
    import torch

    window = states.shape[1]
    sent = torch.cat([past, blocks], dim=1)
    for step in range(blocks.shape[1]):
        predicted = predictor(states, form(sent[:, step : step + window]))
        predicted = predicted[0] if isinstance(predicted, tuple) else predicted
        check_shape("the predictor's output", predicted.shape, states.shape, "[n, T, N, D]")
        states = torch.cat([states[:, 1:], predicted[:, -1:]], dim=1)
    return states[:, -1]


def action_former(predictor: object, form: str, spec: ActionSpec) -> Former:
    """How to hand blocks `[n, T, 250, 3]` to a predictor; see `VJ2GUIPlanner`."""
    module = getattr(predictor, "module", predictor)  # as wrapped for several GPUs
    own: Former | None = getattr(module, "actions_formatter", None)
    if form == "auto" and own is not None:
        return own
    if form == "auto":
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
