"""`DDIMOptimizer`: sample candidates, rank them by the planner's cost, refine, return the best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_plugin.interface import PlanningProblem, PlanResult
from vj2_ddim_plugin.model import BundleModel, SamplerModel
from vj2_ddim_plugin.search import CandidateSearch, SearchSettings

__all__ = ["DDIMOptimizer"]


class DDIMOptimizer:
    """An `ActionOptimizer` that samples plans from a diffusion model.

    Every problem of a batch gets the same starting noise, drawn from the seed alone, so that a plan
    does not depend on what else is in its batch, and the same seed gives the same plan.

    Args:
        model: The trained model; `from_bundle` loads one.
        num_inference_steps: DDIM steps N.
        num_candidates: Samples K that the planner's cost ranks; without a cost, one is drawn.
        eta: 0 is DDIM, 1 is DDPM.
        guidance_scale: Classifier-free guidance, `uncond + s * (cond - uncond)`; 1 is off.
        num_refinements: Rounds that re-noise the best candidates and denoise them again.
        refinement_strength: How far to re-noise, as a share of the schedule.
        project: Whether candidates are projected onto valid gestures before they are ranked.
        timestep_spacing: Overrides the schedule's spacing.
        seed: Used where a problem brings none.

    Raises:
        ConfigError: A setting is out of range, or guidance is asked of an unconditional model.
        ScheduleError: The steps do not fit the schedule.
    """

    def __init__(
        self,
        model: SamplerModel,
        *,
        num_inference_steps: int = 10,
        num_candidates: int = 16,
        eta: float = 0.0,
        guidance_scale: float = 1.0,
        num_refinements: int = 0,
        refinement_strength: float = 0.4,
        project: bool = True,
        timestep_spacing: str | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.action_spec = model, model.action_spec
        self.settings = SearchSettings(
            num_inference_steps=num_inference_steps,
            num_candidates=num_candidates,
            eta=eta,
            guidance_scale=guidance_scale,
            num_refinements=num_refinements,
            refinement_strength=refinement_strength,
            project=project,
            timestep_spacing=timestep_spacing,
            seed=seed,
        )
        self.settings.check(model)

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        provider: str = "auto",
        num_threads: int | None = None,
        provider_options: Mapping[str, Any] | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> DDIMOptimizer:
        """Load a bundle.

        Args:
            path: The bundle's folder.
            provider: `auto`, `cpu` or `cuda`; by name it is strict.
            num_threads: Threads of one operator; None leaves ONNX Runtime's choice.
            provider_options: Passed to CUDA as they are.
            **settings: Any keyword of the constructor.

        Returns:
            The optimizer, warmed up by running its whole loop.

        Raises:
            BundleError: The bundle is incomplete, changed or inconsistent.
            ProviderError: The provider asked for is not the one that runs.
        """
        optimizer = cls(BundleModel(path, provider, num_threads, provider_options), **settings)
        optimizer.warm_up()
        return optimizer

    def warm_up(self, batch_size: int = 1) -> None:
        """Plan once with and once without a cost, so that the first real plan is not slow."""
        context = {
            name: np.zeros((batch_size, *shape), np.float32)
            for name, shape in self.model.condition.inputs.items()
        }
        for cost in (None, lambda candidates: np.zeros(candidates.shape[:2])):
            self.optimize(PlanningProblem(context, cost=cost, batch_size=batch_size))

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Plan.

        Args:
            problem: See `PlanningProblem`. `init_action` becomes candidate 0, so with a cost the
                plan is never worse than it.

        Returns:
            The best candidate of each row; without a cost, the sample.

        Raises:
            ContextError: The context, cost or init_action does not fit this optimizer.
        """
        search = CandidateSearch(self.model, self.settings, problem)
        search.sample()
        for _ in range(self.settings.num_refinements if problem.cost is not None else 0):
            if search.out_of_time():
                break
            search.refine()
        return search.result()
