"""The registry's entries for DDIM from a bundle."""

from __future__ import annotations

from typing import Any

from vj2_ddim_benchmark.planners.entry import BuildAssets, Entry, Settings
from vj2_ddim_plugin.optimizer import DDIMOptimizer

__all__ = ["ddim"]

GUIDANCE_SCALES = (1.0, 1.25, 1.5, 2.0)
TEMPERATURES = (0.5, 0.75, 1.0)


def ddim(
    num_candidates: int,
    *,
    num_inference_steps: int = 10,
    num_refinements: int = 0,
    num_ranked: int | None = None,
    num_robust: int = 0,
    in_quick: bool = True,
) -> Entry:
    """DDIM samples from the bundle; a single one is not ranked and sees no world model.

    With `num_ranked` the bundle's ranker picks so many of the candidates for the cost; with
    `num_robust` so many of the cheapest are asked about again, moved a little.
    """

    def build(assets: BuildAssets, settings: Settings, **changes: Any) -> DDIMOptimizer:  # noqa: ANN401
        return DDIMOptimizer.from_bundle(
            assets.required_bundle_path,
            provider="cpu",
            num_threads=assets.num_threads,
            num_inference_steps=num_inference_steps,
            num_candidates=num_candidates,
            num_refinements=num_refinements,
            num_ranked=num_ranked,
            num_robust=num_robust,
            seed=assets.seed,
            **settings,
            **changes,
        )

    def build_unprojected(assets: BuildAssets, settings: Settings) -> DDIMOptimizer:
        return build(assets, settings, project=False)

    suffix = f"-refined-{num_refinements}" if num_refinements else ""
    suffix += "" if num_ranked is None else f"-ranker-{num_ranked}"
    suffix += f"-robust-{num_robust}" if num_robust else ""
    return Entry(
        f"ddim-{num_candidates}{suffix}",
        build,
        search_space={"guidance_scale": GUIDANCE_SCALES, "temperature": TEMPERATURES},
        with_cost=num_candidates > 1,
        build_unprojected=build_unprojected,
        in_quick=in_quick,
    )
