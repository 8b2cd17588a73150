"""stable-worldmodel's info dict: its latents, and the host's cost of candidates from it.

The host's policy makes the dict anew for each plan: tensors and arrays `(B, T, ...)` by name. Its
cost models write what they encode into the dict they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.adapters.checks import checked_init_action
from vj2_ddim_plugin.errors import ConfigError, ContextError, CostError
from vj2_ddim_plugin.interface import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Encode", "Info", "InfoCost", "batch_of", "encode_last_frames", "placed", "warm_start"]

Info: TypeAlias = Mapping[str, Any]
Encode: TypeAlias = "Callable[[Any, Info], Mapping[str, Tensor]]"
"""From the host's cost model and info dict, the bundle's context arrays `[B, ...]` by name."""


def encode_last_frames(model: Any, info: Info) -> dict[str, Tensor]:  # noqa: ANN401
    """`state` and `goal` `[B, 1, D]`: what LeWM's `encode` makes of the last `pixels` and `goal`.

    Args:
        model: Has `encode(info) -> info` with `emb` `[B, T, D]`, or holds one that has as `model`
            (the newer layout's cost).
        info: With `pixels` and `goal`, `[B, T, C, H, W]`.

    Raises:
        ConfigError: There is no such method.
        ContextError: The info dict has no `pixels` or no `goal`.
    """
    import torch

    encoder = next(
        (part for part in (model, getattr(model, "model", None)) if hasattr(part, "encode")), None
    )
    if encoder is None:
        raise ConfigError(
            f"{type(model).__name__} has no method 'encode', so its latents are not known; pass "
            f"encode=, a function (model, info_dict) -> {{'state': [B, N, D], 'goal': [B, N, D]}}"
        )
    missing = [key for key in ("pixels", "goal") if key not in info]
    if missing:
        raise ContextError(f"the info dict has no {missing}, only {sorted(info)}")
    frames = torch.cat([info["pixels"][:, -1:], info["goal"][:, -1:]])
    state, goal = encoder.encode({"pixels": frames})["emb"][:, -1:].chunk(2)
    return {"state": state, "goal": goal}


def batch_of(info: Info, num_envs: int) -> int:
    """B, of the first tensor or array in an info dict, or else of the first list.

    An info dict that has neither says nothing of its own: it is for all `num_envs` environments.

    Raises:
        ContextError: It is 0.
    """
    arrays = [len(value) for value in info.values() if _has_rows(value)]
    lists = [len(value) for value in info.values() if isinstance(value, list)]
    batch = [*arrays, *lists, num_envs][0]
    if batch < 1:
        raise ContextError(
            f"the info dict needs tensors or arrays (B, T, ...) with B at least 1; found "
            f"{ {name: _described(value) for name, value in info.items()} }"
        )
    return batch


def _has_rows(value: Any) -> bool:  # noqa: ANN401
    """Whether a value is a tensor or an array with one entry a problem."""
    import torch

    return bool((torch.is_tensor(value) or isinstance(value, np.ndarray)) and value.ndim)


def _described(value: Any) -> str:  # noqa: ANN401
    return str(tuple(value.shape)) if hasattr(value, "shape") else type(value).__name__


def placed(info: Info, model: Any, device: str) -> dict[str, Any]:  # noqa: ANN401
    """A copy with tensors on `device`, floating ones in the dtype of the model's weights."""
    import torch

    weights = getattr(model, "parameters", lambda: ())()
    dtype = next((weight.dtype for weight in weights), torch.float32)

    def place(value: Any) -> Any:  # noqa: ANN401
        if not torch.is_tensor(value):
            return value
        return value.to(device, dtype if value.is_floating_point() else value.dtype)

    return {key: place(value) for key, value in info.items()}


def warm_start(
    init_action: Tensor | None, spec: ActionSpec, batch: int, sizes: tuple[int, int]
) -> FloatArray | None:
    """The host's `(B, l, D)` as `[B, l * action_block, A]`; None when there is none.

    Args:
        init_action: The rest of the last plan, or None.
        spec: Of the bundle.
        batch: B.
        sizes: (H, D).

    Raises:
        ContextError: It does not fit.
    """
    if init_action is None:
        return None
    horizon, width = sizes
    if init_action.ndim != 3 or init_action.shape[2] != width:
        raise ContextError(
            f"init_action has shape {tuple(init_action.shape)}; expected ({batch}, at most "
            f"{horizon}, {width})"
        )
    length = init_action.shape[1] * width // spec.num_channels
    actions = init_action.reshape(len(init_action), length, spec.num_channels)
    return checked_init_action(actions, spec, batch)


@dataclass
class InfoCost:
    """The host's cost model as a `CostFn`, for the problems of one info dict.

    Attributes:
        model: Has `get_cost(info, candidates (b, N, H, D)) -> (b, N)`.
        info: Of all B problems, already where the model is.
        device: Where the model is.
        horizon: H.
        batch_size: Problems in one call of the model.
        callbacks: Called with `step`, `candidates (B, N, H, D)` and `costs (B, N)`.
        in_slices: Whether a call may be about a part of a round, as under a deadline. Nothing says
            which, so the callbacks then hear of all of them at once, in `finish`.
    """

    model: Any
    info: Info
    device: str
    horizon: int
    batch_size: int
    callbacks: Sequence[Any]
    in_slices: bool = False
    num_rounds: int = 0
    _ranked: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """`[B, N, L, A]` to `[B, N]`.

        Raises:
            CostError: The model returned something else.
        """
        import torch

        batch, count = candidates.shape[:2]
        shaped = torch.from_numpy(candidates.reshape(batch, count, self.horizon, -1))
        blocks = placed({"candidates": shaped}, self.model, self.device)["candidates"]
        with torch.inference_mode():
            starts = range(0, batch, self.batch_size)
            costs = torch.cat(
                [self._of_some(start, blocks[start : start + self.batch_size]) for start in starts]
            )
        if self.callbacks:
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
            for callback in self.callbacks:
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
        costs = self.model.get_cost(expanded, blocks)
        if not torch.is_tensor(costs) or tuple(costs.shape) != (size, count):
            found = tuple(getattr(costs, "shape", ())) or type(costs).__name__
            raise CostError(
                f"{type(self.model).__name__}.get_cost returned {found} for candidates "
                f"{tuple(blocks.shape)}; expected a tensor ({size}, {count})"
            )
        return costs
