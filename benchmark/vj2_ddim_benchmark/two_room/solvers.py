"""The host's solvers at its defaults, what their tuning tries, and ours.

A default is the constructor's, or, where it has none, the one of the host's configuration files
(gradient descent: 30 steps of SGD at a learning rate of 1). Every solver works on one environment
at a time, the host's own default.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vj2_ddim_benchmark.two_room.lewm import WorldModel
from vj2_ddim_benchmark.two_room.stable_worldmodel import import_stable_worldmodel
from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver

__all__ = ["OURS", "PUBLISHED", "Chosen", "PublishedSolver", "build_solver"]

Chosen = dict[str, Any]  # settings of a solver, by the names of its constructor


@dataclass(frozen=True)
class PublishedSolver:
    """One of the host's solvers; tuning tries every combination of the values of `space`."""

    name: str  # its class in `stable_worldmodel.solver`
    defaults: Chosen  # what its constructor asks for, or what names the variant
    space: Mapping[str, tuple[Any, ...]]

    def candidates(self) -> list[Chosen]:
        """The settings that tuning tries."""
        values = itertools.product(*self.space.values())
        return [dict(zip(self.space, chosen, strict=True)) for chosen in values]

    def build(self, settings: Chosen, world_model: WorldModel) -> Any:  # noqa: ANN401
        """The solver; `optimizer` and `lr` go together, `budget` is `(num_samples, n_steps)`."""
        chosen: Chosen = {"batch_size": 1, **self.defaults, **settings}
        if "budget" in chosen:
            chosen["num_samples"], chosen["n_steps"] = chosen.pop("budget")
        if "optimizer" in chosen:
            chosen["optimizer_cls"] = getattr(torch.optim, chosen.pop("optimizer"))
            chosen["optimizer_kwargs"] = {"lr": chosen.pop("lr")}
        return getattr(import_stable_worldmodel("solver"), self.name)(world_model.model, **chosen)


BUDGETS = ((300, 30), (300, 10), (100, 10))  # num_samples, n_steps; the first is the default

PUBLISHED = {
    "gradient, 1 sample": PublishedSolver(
        "GradientSolver",
        {"n_steps": 30, "num_samples": 1},
        {"optimizer": ("SGD", "Adam"), "lr": (0.03, 0.1, 0.3, 1.0, 3.0)},
    ),
    "gradient, 100 samples": PublishedSolver(
        "GradientSolver",
        {"n_steps": 30, "num_samples": 100},
        {"optimizer": ("SGD", "Adam"), "lr": (0.1, 0.3, 1.0), "n_steps": (10, 30)},
    ),
    "CEM": PublishedSolver(
        "CEMSolver", {}, {"budget": BUDGETS, "topk": (10, 30), "var_scale": (1.0, 2.0)}
    ),
    "iCEM": PublishedSolver(
        "ICEMSolver", {}, {"budget": BUDGETS[:2], "topk": (10, 30), "noise_beta": (0.5, 2.0)}
    ),
    "MPPI": PublishedSolver(
        "MPPISolver", {}, {"budget": BUDGETS[:2], "temperature": (0.05, 0.5, 5.0, 20.0, 80.0)}
    ),
}

OURS: dict[str, Chosen] = {
    "ours, 16 candidates": {"num_candidates": 16},
    "ours, 16 candidates, 4 steps": {"num_candidates": 16, "num_inference_steps": 4},
    "ours, 1 sample": {"num_candidates": 1, "ranked": False},
}


def build_solver(name: str, settings: Chosen, world_model: WorldModel, bundle: Path) -> Any:  # noqa: ANN401
    """One of the host's; or ours, on the CPU with as many threads as torch has."""
    if name in PUBLISHED:
        return PUBLISHED[name].build(settings, world_model)
    threads = torch.get_num_threads()
    return StableWorldModelSolver(
        bundle, world_model.model, provider="cpu", num_threads=threads, **settings
    )
