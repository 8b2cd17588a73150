"""`DDIMOptimizer`: sample candidates, rank them by the planner's cost, refine, return the best."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import PlanningProblem, PlanResult
from vj2_ddim_plugin.model import BundleModel, SamplerModel
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.planning.failure import Fallback, checked_chain, plan_or_fall_back
from vj2_ddim_plugin.planning.search import CandidateSearch
from vj2_ddim_plugin.planning.settings import SearchSettings

__all__ = ["DDIMOptimizer"]


class DDIMOptimizer:
    """An `ActionOptimizer` that samples plans from a diffusion model.

    Every problem of a batch gets the same starting noise, drawn from the seed alone, so that a plan
    does not depend on what else is in its batch, and the same seed gives the same plan. (Under a
    deadline it also depends on the time there is.) One optimizer may plan in many threads at once,
    and can be pickled into worker processes.

    Args:
        model: The trained model; `from_bundle` loads one.
        num_inference_steps: DDIM steps N.
        num_candidates: Samples K that the planner's cost ranks; without a cost, one is drawn.
        num_ranked: Of the K, how many the bundle's ranker picks for the cost to rank (the warm
            start is ranked besides: without `num_robust`, a plan is never worse than it); 1 leaves
            the choice to the ranker. Where a problem has no cost, K are drawn and the ranker's
            favourite is the plan. None does without the ranker.
        eta: 0 is DDIM, 1 is DDPM.
        guidance_scale: Classifier-free guidance, `uncond + s * (cond - uncond)`; 1 is off.
        temperature: Standard deviation of the noise that sampling starts from. Below 1, samples
            crowd where the model is surest: a single one hits more often, many differ less (as the
            low-temperature sampling of Ajay et al. 2023, "Is Conditional Generative Modeling All
            You Need for Decision-Making?", which scales the noise of every step).
        num_refinements: Rounds that re-noise the best candidates and denoise them again; None goes
            on until the deadline, which every problem must then have.
        refinement_strength: How far to re-noise, as a share of the schedule.
        num_robust: Of the cheapest, how many are asked about again, moved a little each way; the
            plan is the one whose worst cost is lowest, and its `cost` stays its own. 0 takes the
            cheapest. Under a deadline, as many as there is time for. A warm start that is cheaper
            may then lose to a plan that is safer.
        robust_radius: How far they are moved, as a share of each channel's range.
        warm_start_share: Share of the candidates that, where a problem has a warm start, begin at
            the warm start re-noised by `refinement_strength` instead of at pure noise.
        project: Whether candidates are projected onto valid gestures before they are ranked.
        timestep_spacing: Overrides the schedule's spacing.
        seed: Used where a problem brings none.
        on_failure: What to ask, in this order, when a plan fails: `"previous"` (the warm start) or
            an optimizer, for example the host's own. Empty: the error is raised.

    Raises:
        ConfigError: A setting is out of range, guidance is asked of an unconditional model, or
            `num_ranked` of one without a ranker.
        ScheduleError: The steps do not fit the schedule.
    """

    def __init__(
        self,
        model: SamplerModel,
        *,
        num_inference_steps: int = 10,
        num_candidates: int = 16,
        num_ranked: int | None = None,
        eta: float = 0.0,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        num_refinements: int | None = 0,
        refinement_strength: float = 0.4,
        num_robust: int = 0,
        robust_radius: float = 0.015,
        warm_start_share: float = 0.25,
        project: bool = True,
        timestep_spacing: str | None = None,
        seed: int = 0,
        on_failure: Sequence[Fallback] = (),
    ) -> None:
        self.model, self.action_spec = model, model.action_spec
        self.settings = SearchSettings(
            num_inference_steps=num_inference_steps,
            num_candidates=num_candidates,
            num_ranked=num_ranked,
            eta=eta,
            guidance_scale=guidance_scale,
            temperature=temperature,
            num_refinements=num_refinements,
            refinement_strength=refinement_strength,
            num_robust=num_robust,
            robust_radius=robust_radius,
            warm_start_share=warm_start_share,
            project=project,
            timestep_spacing=timestep_spacing,
            seed=seed,
        )
        self.settings.check(model)
        self.on_failure = checked_chain(on_failure)
        self._pace = Pace()

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        provider: str = "auto",
        num_threads: int | None = None,
        provider_options: Mapping[str, Any] | None = None,
        allow_tf32: bool = False,
        memory_limit_bytes: int | None = None,
        cuda_graph: bool = False,
        **settings: Any,  # noqa: ANN401
    ) -> DDIMOptimizer:
        """Load a bundle.

        Args:
            path: The bundle's folder.
            provider: `auto`, `cpu`, `cuda` or `tensorrt`; by name it is strict.
            num_threads: Threads of one operator; None leaves ONNX Runtime's choice.
            provider_options: Passed to the GPU's provider as they are.
            allow_tf32: Whether a GPU may multiply in TF32; the loop amplifies its error.
            memory_limit_bytes: Of the GPU, for each graph.
            cuda_graph: Whether a GPU records and replays the denoiser.
            **settings: Any keyword of the constructor.

        Returns:
            The optimizer, warmed up by running its whole loop.

        Raises:
            ConfigError: A setting is unknown.
            BundleError: The bundle is incomplete, changed or inconsistent.
            ProviderError: The provider asked for is not the one that runs.
        """
        known = inspect.signature(cls).parameters.keys() - {"model"}
        if unknown := sorted(settings.keys() - known):
            raise ConfigError(
                f"{unknown[0]!r} is no setting; those of a plan are {', '.join(sorted(known))}"
            )
        model = BundleModel(
            path,
            provider,
            num_threads,
            provider_options,
            allow_tf32=allow_tf32,
            memory_limit_bytes=memory_limit_bytes,
            cuda_graph=cuda_graph,
        )
        optimizer = cls(model, **settings)
        optimizer.warm_up()
        return optimizer

    def warm_up(self, batch_size: int = 1) -> None:
        """Plan with and without a cost, refinement included: the first real plan is not slow then.

        Also measures how long a denoising step takes, which a deadline has to know.
        """
        context = {
            name: np.zeros((batch_size, *shape), np.float32)
            for name, shape in self.model.condition.inputs.items()
        }
        refinements = 0 if self.settings.num_refinements == 0 else 1
        settings = replace(self.settings, num_refinements=refinements)
        short = replace(settings, num_refinements=0, num_inference_steps=1)
        spec = self.action_spec
        released = np.zeros((batch_size, 1, spec.num_channels))
        first = np.clip(released, spec.low_array, spec.high_array) if spec.length > 1 else None
        for pace in (Pace(), self._pace):  # the first time is not what later ones take
            for cost in (None, lambda candidates: np.zeros(candidates.shape[:2])):
                problem = PlanningProblem(context, cost, batch_size=batch_size)
                CandidateSearch(self.model, settings, problem, pace).run()
                continued = replace(problem, frozen_action=first)
                CandidateSearch(self.model, short, continued, pace).run()
        self._pace.forget("cost")

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """Plan.

        Args:
            problem: See `PlanningProblem`. `init_action` becomes candidate 0, so with a cost the
                plan is never worse than it (than what the constraints leave of it; but see
                `num_robust`). `deadline_s` is
                kept by beginning nothing that is not expected to end in time: fewer steps, fewer
                candidates, no more rounds; where not even one candidate could be ranked, the plan
                is the warm start, or else the first sample, with cost NaN.

        Returns:
            The best candidate of each row; without a cost, the sample or the ranker's choice.

        Raises:
            ContextError: The problem does not fit this optimizer, its cost failed, or its
                constraints cannot be kept; unless `on_failure` has an answer.
            ProviderError: The execution provider failed while running, likewise.
        """
        return plan_or_fall_back(self._plan, problem, self.action_spec, self.on_failure)

    def _plan(self, problem: PlanningProblem) -> PlanResult:
        return CandidateSearch(self.model, self.settings, problem, self._pace).run()

    def close(self) -> None:
        """Free the model; planning afterwards is an error. Closing twice is fine."""
        self.model.close()

    def __enter__(self) -> DDIMOptimizer:
        """For `with`: closed at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()
