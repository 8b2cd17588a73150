"""The registry of planners: one line each, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence

from vj2_ddim_benchmark.planners.cem import cem
from vj2_ddim_benchmark.planners.ddim import ddim
from vj2_ddim_benchmark.planners.ddim_started import ddim_adam, ddim_cem
from vj2_ddim_benchmark.planners.description import Planner
from vj2_ddim_benchmark.planners.gaussian_prior import gaussian_prior
from vj2_ddim_benchmark.planners.gesture_cem import gesture_cem
from vj2_ddim_benchmark.planners.gradient_descent import gradient_descent
from vj2_ddim_benchmark.planners.icem import icem
from vj2_ddim_benchmark.planners.mppi import mppi
from vj2_ddim_benchmark.planners.predictive_sampling import predictive_sampling
from vj2_ddim_benchmark.planners.random_gestures import random_gestures
from vj2_ddim_benchmark.planners.regression import regression
from vj2_ddim_benchmark.planners.retrieval import retrieval
from vj2_ddim_plugin.errors import ConfigError

__all__ = ["REGISTRY", "entries_of", "planners_of"]

REGISTRY: tuple[Planner, ...] = (
    ddim(16),
    ddim(16, num_robust=2),
    ddim(16, num_refinements=2, in_quick=False),
    ddim(16, num_ranked=1),
    ddim(16, num_ranked=4, in_quick=False),
    ddim(1),
    ddim_cem(16),
    ddim_adam(16, 10),
    regression(),
    gaussian_prior(16),
    retrieval(16),
    gradient_descent("sgd", 10, in_quick=False),
    gradient_descent("sgd", 10, num_restarts=16, in_quick=False),
    gradient_descent("sgd", 200, in_quick=False),
    gradient_descent("adam", 10),
    gradient_descent("adam", 10, start="zeros", in_quick=False),
    gradient_descent("adam", 10, start="gestures", in_quick=False),
    gradient_descent("adam", 10, num_restarts=16),
    gradient_descent("adam", 50, in_quick=False),
    gradient_descent("adam", 200, in_quick=False),
    cem(8, 32),
    icem(8, 60),
    mppi(8, 32),
    predictive_sampling(8, 32),
    gesture_cem(8, 16, in_quick=True),
    gesture_cem(8, 64),
    random_gestures(16),
)


def planners_of(
    names: Sequence[str] | None = None, *, quick: bool = False, latents: bool = False
) -> tuple[Planner, ...]:
    """Rows of the registry, in its order.

    Args:
        names: Which; without names, all (or the quick ones) that there are the assets for.
        quick: Whether only quick ones are meant.
        latents: Whether the denoiser's training data are there, which are not shipped.

    Raises:
        ConfigError: A name is unknown.
    """
    if not names:
        usable = (planner for planner in REGISTRY if latents or "latents" not in planner.needs)
        return tuple(planner for planner in usable if planner.in_quick or not quick)
    known = [planner.name for planner in REGISTRY]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"planner {unknown[0]!r} is unknown; use one of {', '.join(known)}")
    return tuple(planner for planner in REGISTRY if planner.name in names)


entries_of = planners_of  # SHIM: the old name
