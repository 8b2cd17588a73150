"""The registry's entries for DDIM from a bundle."""

from __future__ import annotations

from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, TunedSettings
from vj2_ddim_plugin.optimizer import DDIMOptimizer

__all__ = ["ddim"]

GUIDANCE_SCALES = (1.0, 1.25, 1.5, 2.0)
TEMPERATURES = (0.5, 0.75, 1.0)


def make_ddim(assets: PlannerAssets, settings: TunedSettings) -> DDIMOptimizer:
    """What the registry builds."""
    return DDIMOptimizer.from_bundle(
        assets.path("bundle"),
        provider="cpu",
        num_threads=assets.num_threads,
        seed=assets.seed,
        **settings,
    )


def ddim(
    num_candidates: int,
    *,
    num_inference_steps: int = 10,
    num_refinements: int = 0,
    num_ranked: int | None = None,
    num_robust: int = 0,
    in_quick: bool = True,
) -> Planner:
    """DDIM samples from the bundle; a single one is not ranked and sees no world model.

    With `num_ranked` the bundle's ranker picks so many of the candidates for the cost; with
    `num_robust` so many of the cheapest are asked about again, moved a little.
    """
    suffix = f"-refined-{num_refinements}" if num_refinements else ""
    suffix += "" if num_ranked is None else f"-ranker-{num_ranked}"
    suffix += f"-robust-{num_robust}" if num_robust else ""
    return Planner(
        f"ddim-{num_candidates}{suffix}",
        make_ddim,
        search_space={"guidance_scale": GUIDANCE_SCALES, "temperature": TEMPERATURES},
        with_cost=num_candidates > 1,
        in_quick=in_quick,
        fixed={
            "num_inference_steps": num_inference_steps,
            "num_candidates": num_candidates,
            "num_refinements": num_refinements,
            "num_ranked": num_ranked,
            "num_robust": num_robust,
        },
        needs=("bundle",),
        unprojected={"project": False},
    )
