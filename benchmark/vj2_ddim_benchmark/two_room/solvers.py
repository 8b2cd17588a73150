"""The host's solvers at its defaults, what their tuning tries, and ours.

A default is the constructor's, or, where it has none, the one of the host's configuration files
(gradient descent: 30 steps of SGD at a learning rate of 1). Every solver works on one environment
at a time, the host's own default.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vj2_ddim_benchmark.two_room.host import import_host
from vj2_ddim_benchmark.two_room.lewm import WorldModel
from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver

__all__ = ["HOST_SOLVERS", "OURS", "HostSolver", "build_host_solver", "build_ours"]

Settings = dict[str, Any]


@dataclass(frozen=True)
class HostSolver:
    """One of the host's solvers.

    Attributes:
        name: Its class in `stable_worldmodel.solver`.
        defaults: Settings that its constructor asks for, or that name the variant.
        space: What tuning tries: every combination of these values.
    """

    name: str
    defaults: Settings
    space: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def candidates(self) -> list[Settings]:
        """The settings that tuning tries."""
        return [
            dict(zip(self.space, values, strict=True))
            for values in itertools.product(*self.space.values())
        ]


BUDGETS = ((300, 30), (300, 10), (100, 10))  # num_samples, n_steps; the first is the default

HOST_SOLVERS = {
    "gradient, 1 sample": HostSolver(
        "GradientSolver",
        {"n_steps": 30, "num_samples": 1},
        {"optimizer": ("SGD", "Adam"), "lr": (0.03, 0.1, 0.3, 1.0, 3.0)},
    ),
    "gradient, 100 samples": HostSolver(
        "GradientSolver",
        {"n_steps": 30, "num_samples": 100},
        {"optimizer": ("SGD", "Adam"), "lr": (0.1, 0.3, 1.0), "n_steps": (10, 30)},
    ),
    "CEM": HostSolver(
        "CEMSolver", {}, {"budget": BUDGETS, "topk": (10, 30), "var_scale": (1.0, 2.0)}
    ),
    "iCEM": HostSolver(
        "ICEMSolver", {}, {"budget": BUDGETS[:2], "topk": (10, 30), "noise_beta": (0.5, 2.0)}
    ),
    "MPPI": HostSolver(
        "MPPISolver", {}, {"budget": BUDGETS[:2], "temperature": (0.05, 0.5, 5.0, 20.0, 80.0)}
    ),
}

OURS: dict[str, Settings] = {
    "ours, 16 candidates": {"num_candidates": 16},
    "ours, 16 candidates, 4 steps": {"num_candidates": 16, "num_inference_steps": 4},
    "ours, 1 sample": {"num_candidates": 1, "ranked": False},
}


def build_host_solver(kind: HostSolver, settings: Settings, world_model: WorldModel) -> Any:  # noqa: ANN401
    """A solver of the host.

    Args:
        kind: Which.
        settings: In place of its defaults; `optimizer` and `lr` are put together, `budget` is
            `(num_samples, n_steps)`.
        world_model: Its cost.
    """
    chosen: Settings = {"batch_size": 1, **kind.defaults, **settings}
    if "budget" in chosen:
        chosen["num_samples"], chosen["n_steps"] = chosen.pop("budget")
    if "optimizer" in chosen:
        chosen["optimizer_cls"] = getattr(torch.optim, chosen.pop("optimizer"))
        chosen["optimizer_kwargs"] = {"lr": chosen.pop("lr")}
    return getattr(import_host("solver"), kind.name)(world_model.model, **chosen)


def build_ours(
    bundle: Path, settings: Settings, world_model: WorldModel, num_threads: int
) -> StableWorldModelSolver:
    """Our solver, on the CPU with as many threads as torch has."""
    return StableWorldModelSolver(
        bundle, world_model.model, provider="cpu", num_threads=num_threads, **settings
    )
