"""V-JEPA 2: in place of `cem` of its notebook's `mpc_utils`, for robot arms (V-JEPA 2-AC).

Plans in the robot's units: metres and radians of change a step, gripper from -0.75 to 0.75, as
`[x, y, z, roll, pitch, yaw, gripper]`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vj2_ddim_plugin.adapters import Adapter
from vj2_ddim_plugin.adapters.base import HostPlanner, check_fit, check_shape
from vj2_ddim_plugin.errors import ActionError, ConfigError
from vj2_ddim_plugin.interface import ActionOptimizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ADAPTER", "VJEPA2CEM", "l1"]

ADAPTER = Adapter(
    host="V-JEPA 2",
    replaces="cem of notebooks/utils/mpc_utils.py",
    units="robot: metres, radians, gripper",
    usage="VJEPA2CEM('bundle').put_into(world_model)",
    target="vj2_ddim_plugin.adapters.vjepa2:VJEPA2CEM",
)

WorldModel: TypeAlias = "Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]"

POSE_DIM = 7
SAMPLED = [0, 1, 2, -1]  # what the host samples of them: x, y, z, gripper
GRIPPER_LIMIT = 0.75  # largest gripper command the host samples
GRIPPER_DEADBAND = 0.25  # smaller ones become 0


def l1(a: Tensor, b: Tensor) -> Tensor:
    """The host's default objective: mean absolute difference of `[n, F]`, as `[n]`."""
    return (a - b).abs().mean(dim=-1)


class VJEPA2CEM(HostPlanner):
    """A callable with the signature of the host's `cem`, for one problem at a time.

    The bundle's actions have 7 channels, or 4 (x, y, z, gripper): then the hand does not turn, as
    with the host. Every candidate is limited as the host limits its own before it is ranked.

    Args:
        optimizer: A bundle's folder, or any `ActionOptimizer` with an `action_spec`.
        warm_start: Whether the last plan without its first step is candidate 0 of the next; call
            `forget` at a new goal.
        **settings: Of `HostPlanner` (`deadline_s`, `seed`) and of the bundle.

    Raises:
        ActionError: The optimizer makes neither 7 nor 4 numbers a step.
    """

    host = "V-JEPA 2"

    def __init__(
        self,
        optimizer: ActionOptimizer | Path | str,
        *,
        warm_start: bool = False,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(optimizer, **settings)
        spec = self.action_spec
        if spec.action_block != 1 or spec.num_channels not in (4, POSE_DIM):
            raise ActionError(
                f"V-JEPA 2 takes one action of 7 numbers (or 4: x, y, z, gripper) a step; the "
                f"optimizer makes {spec.action_block} of {spec.num_channels}. Train on its actions"
            )
        self._own = slice(None) if spec.num_channels == POSE_DIM else SAMPLED
        self.warm_start = warm_start
        self._rest: Tensor | None = None

    def forget(self) -> None:
        """Drop the warm start: a new goal begins."""
        self._rest = None

    def put_into(self, world_model: object) -> None:
        """Stand where `cem` stood in the module of the host's `WorldModel`, class or object."""
        kind = world_model if isinstance(world_model, type) else type(world_model)
        module = sys.modules[kind.__module__]
        if not callable(getattr(module, "cem", None)):
            raise ConfigError(
                f"{kind.__module__}.{kind.__name__} is not V-JEPA 2's WorldModel: its module has "
                f"no 'cem' to replace"
            )
        vars(module)["cem"] = self

    def __call__(  # noqa: D417
        self, context_frame: Tensor, context_pose: Tensor, goal_frame: Tensor,
        world_model: WorldModel, rollout: int = 1, cem_steps: int = 100,
        momentum_mean: float = 0.25, momentum_std: float = 0.95,
        momentum_mean_gripper: float = 0.15, momentum_std_gripper: float = 0.15,
        samples: int = 100, topk: int = 10, verbose: bool = False, maxnorm: float = 0.05,
        axis: Mapping[int, float] = {}, objective: Callable[[Tensor, Tensor], Tensor] = l1,
        close_gripper: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Plan; what says how cross-entropy works (steps, momenta, topk, verbose) is not used.

        Args:
            context_frame: Latents `[1, HW, D]` or `[1, 1, HW, D]` of what is seen.
            context_pose: `[1, 7]` or `[1, 1, 7]`, where the arm is.
            goal_frame: Latents, likewise, of what should be seen.
            world_model: `(frames [n, t, HW, D], actions [n, t, 7], poses [n, t, 7])` to the next
                frame `[n, 1, HW, D]` and pose `[n, 1, 7]`.
            rollout: Steps to plan.
            samples: Candidates in one pass through the world model, not in all.
            maxnorm, axis, close_gripper: See `Limits`.
            objective: `(last [n, HW * D], goal [n, HW * D]) -> [n]`.

        Returns:
            `[1, rollout, 7]`, float32, on the context's device.

        Raises:
            ActionError: The rollout is longer than the optimizer's plans, or the plan is no plan.
            ConfigError: `axis` has an index that the host's four values do not.
            ContextError: A tensor, or what the world model returns, is of the wrong shape or NaN.
        """
        self._begin()
        limits, spec = Limits(maxnorm, axis, close_gripper), self.action_spec
        check_fit(spec, horizon=rollout, action_dim=spec.num_channels, host=self.host)
        frame, pose, goal = one_problem(context_frame, context_pose, goal_frame)

        def cost(rows: Tensor, candidates: Tensor) -> Tensor:
            last = last_frame(world_model, frame, pose, limits(candidates)).flatten(1)
            return objective(last, goal.flatten(1).repeat(len(rows), 1))

        how: Any = {"length": rollout, "init_action": self._rest, "rows_per_chunk": samples}
        seen = {"state": frame[:, -1], "goal": goal[:, -1]}
        planned = self._optimize(seen, cost, like=frame.new_empty(0).float(), limit=limits, **how)
        moves = limits(planned)
        self._rest = self._in_bounds(moves[:, 1:, self._own]) if self.warm_start else None
        return moves


@dataclass(frozen=True)
class Limits:
    """What the host's `cem` makes of the actions that it samples.

    Args:
        maxnorm: Largest size of x, y and z.
        axis: Values that are given, by index: 0 to 2 are x, y, z, 3 is the gripper; negative ones
            count from the end.
        close_gripper: From this step on the gripper closes (1.0), or None.
    """

    maxnorm: float
    axis: Mapping[int, float]
    close_gripper: int | None

    def __post_init__(self) -> None:
        """Refuse an axis that the host does not sample."""
        count = len(SAMPLED)
        unknown = [index for index in self.axis if index not in range(-count, count)]
        if unknown:
            raise ConfigError(
                f"axis has the indices {unknown}; V-JEPA 2 has 0, 1, 2 for x, y, z and 3 for the "
                f"gripper"
            )

    def __call__(self, actions: Tensor) -> Tensor:
        """`[n, l, 4 or 7]` as the host would have sampled it, `[n, l, 7]`."""
        import torch

        position, rotation = actions[..., :3], actions[..., 3:-1]
        if rotation.shape[-1] == 0:
            rotation = torch.zeros_like(position)
        position = position.clamp(-self.maxnorm, self.maxnorm)
        gripper = actions[..., -1:].clamp(-GRIPPER_LIMIT, GRIPPER_LIMIT)
        full = torch.cat([position, rotation, gripper], dim=-1)
        for index, value in self.axis.items():
            full[..., SAMPLED[index]] = value
        if self.close_gripper is not None:
            full[:, self.close_gripper :, -1] = 1.0
        small = full[..., -1].abs() < GRIPPER_DEADBAND  # last of all, as the host rounds
        full[..., -1] = torch.where(small, 0.0, full[..., -1])
        return full


def one_problem(frame: Tensor, pose: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The host's context and goal with their axis of time, `[1, 1, ...]`, checked."""
    frame, goal = (given[:, None] if given.ndim == 3 else given for given in (frame, goal))
    pose = pose[:, None] if pose.ndim == 2 else pose
    check_shape("context_frame", frame.shape[:2], (1, 1), "[1, 1] at its beginning")
    check_shape("goal_frame", goal.shape, frame.shape, "[1, 1, HW, D]")
    check_shape("context_pose", pose.shape, (1, 1, POSE_DIM), "[1, 1, 7]")
    return frame, pose, goal


def last_frame(
    world_model: WorldModel, context_frame: Tensor, context_pose: Tensor, actions: Tensor
) -> Tensor:
    """The latents `[n, HW, D]` that actions `[n, rollout, 7]` lead to, poses carried along."""
    import torch

    count = len(actions)
    frames, poses = context_frame.repeat(count, 1, 1, 1), context_pose.repeat(count, 1, 1)
    for step in range(1, actions.shape[1] + 1):
        frame, pose = world_model(frames, actions[:, :step].contiguous(), poses)
        check_shape("the next frame", frame.shape, frames[:, :1].shape, "[n, 1, HW, D]")
        frames, poses = torch.cat([frames, frame], 1), torch.cat([poses, pose], 1)
    return frames[:, -1]
