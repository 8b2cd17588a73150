"""One planning call: a growing pool of candidates, their costs, and the accounts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np

from vj2_ddim_plugin.checks import (
    checked_batch,
    checked_context,
    checked_cost,
    checked_output,
    checked_seed,
    padded_warm_start,
)
from vj2_ddim_plugin.ddim import Denoiser, add_noise, classifier_free_guidance, ddim_steps
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.model import SamplerModel
from vj2_ddim_plugin.schedule import NoiseSchedule, TimestepPairs

__all__ = ["CandidateSearch", "SearchSettings"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class SearchSettings:
    """The settings of `DDIMOptimizer`, which documents them."""

    num_inference_steps: int
    num_candidates: int
    eta: float
    guidance_scale: float
    num_refinements: int
    refinement_strength: float
    project: bool
    timestep_spacing: str | None
    seed: int

    def check(self, model: SamplerModel) -> None:
        """Raise `ConfigError` for a setting that cannot work with this model."""
        for name, lowest in (("num_candidates", 1), ("num_refinements", 0), ("seed", 0)):
            if getattr(self, name) < lowest:
                raise ConfigError(f"{name} must be at least {lowest}; found {getattr(self, name)}")
        if not 0.0 <= self.eta <= 1.0 or not 0.0 < self.refinement_strength < 1.0:
            raise ConfigError(
                f"eta must be in [0, 1] and refinement_strength in (0, 1); found {self.eta} and "
                f"{self.refinement_strength}"
            )
        if self.guidance_scale != 1.0 and not model.condition.inputs:
            raise ConfigError(
                f"guidance_scale {self.guidance_scale} needs a conditional model; this one is "
                f"unconditional. Leave it at 1.0"
            )
        self.pairs(model.schedule)
        self.refine_pairs(model.schedule)

    def pairs(self, schedule: NoiseSchedule) -> TimestepPairs:
        """Timesteps from pure noise."""
        return schedule.timesteps(self.num_inference_steps, spacing=self.timestep_spacing)

    def middle(self, schedule: NoiseSchedule) -> int:
        """The timestep that refinement re-noises to."""
        return int(self.refinement_strength * schedule.num_train_timesteps)

    def refine_pairs(self, schedule: NoiseSchedule) -> TimestepPairs:
        """Timesteps from the middle; as many steps as its share of the whole run."""
        steps = max(1, round(self.refinement_strength * self.num_inference_steps))
        return schedule.timesteps(
            steps, spacing=self.timestep_spacing, start_timestep=self.middle(schedule)
        )


class CandidateSearch:
    """The state of one `optimize` call.

    Args:
        model: The trained model.
        settings: How to search.
        problem: What to search for.

    Raises:
        ContextError: The problem does not fit the model.
    """

    def __init__(
        self, model: SamplerModel, settings: SearchSettings, problem: PlanningProblem
    ) -> None:
        self._started = time.perf_counter()
        self._model, self._settings, self._problem = model, settings, problem
        self._spec = model.action_spec
        self._rng = np.random.default_rng(checked_seed(problem, settings.seed))
        self._seconds = dict.fromkeys(("condition", "denoise", "cost", "project"), 0.0)
        self._denoiser_evaluations = self._cost_evaluations = 0
        self._stopped = "finished"
        context = checked_context(problem, model.condition)
        self._batch = checked_batch(problem, context)
        # The pool [B, K', L, A] starts with the warm start, if there is one; then the cost of each
        # candidate, and how far projection moved it, both [B, K'].
        self._pool = padded_warm_start(problem.init_action, self._spec, self._batch)
        self._moved = np.zeros(self._pool.shape[:2])
        self._cost = np.zeros((self._batch, 0))
        self._history: list[FloatArray] = []
        self._encoded = self._timed("condition", model.encode, context)

    def out_of_time(self) -> bool:
        """Whether the deadline has passed; it is remembered as the reason to stop."""
        deadline = self._problem.deadline_s
        if deadline is not None and time.perf_counter() - self._started >= deadline:
            self._stopped = "deadline"
        return self._stopped == "deadline"

    def sample(self) -> None:
        """Add candidates from pure noise."""
        count = self._settings.num_candidates if self._problem.cost is not None else 1
        self._denoise_into_pool(self._draw(count), self._settings.pairs(self._model.schedule))

    def refine(self) -> None:
        """Re-noise the best quarter to a middle timestep, and add what it denoises to."""
        count, schedule = self._settings.num_candidates, self._model.schedule
        best = np.argsort(self._cost, axis=1, kind="stable")[:, : max(1, count // 4)]
        chosen = best[:, np.arange(count) % best.shape[1]]
        elites = self._pool[np.arange(self._batch)[:, None], chosen]
        original = self._spec.encode(self._spec.project(elites))
        noisy = add_noise(original, self._draw(count), self._settings.middle(schedule), schedule)
        self._denoise_into_pool(noisy, self._settings.refine_pairs(schedule))

    def result(self) -> PlanResult:
        """The best of the pool, one a row."""
        rows = np.arange(self._batch)
        if self._problem.cost is None:
            best = np.full(self._batch, self._pool.shape[1] - 1)
            cost, history = np.full(self._batch, np.nan), np.zeros((0, self._batch))
        else:
            best = np.argmin(self._cost, axis=1)
            cost, history = self._cost[rows, best], np.stack(self._history)
        return PlanResult(
            actions=np.ascontiguousarray(self._pool[rows, best]),
            cost=cost,
            history=history,
            num_cost_evaluations=self._cost_evaluations,
            num_denoiser_evaluations=self._denoiser_evaluations,
            wall_time_s={**self._seconds, "total": time.perf_counter() - self._started},
            provider=self._model.provider,
            stopped_because=self._stopped,
            projection_distance=self._moved[rows, best],
        )

    def _timed(self, phase: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        begun = time.perf_counter()
        value = function(*args, **kwargs)
        self._seconds[phase] += time.perf_counter() - begun
        return value

    def _draw(self, count: int) -> FloatArray:
        """Standard normal `[B, count, M, C]`, equal for all B problems."""
        noise = self._rng.standard_normal((count, *self._spec.diffused_shape), np.float32)
        return np.broadcast_to(noise, (self._batch, *noise.shape))

    def _denoise_into_pool(self, noisy: FloatArray, pairs: TimestepPairs) -> None:
        """Denoise `[B, K, M, C]`, decode, project, and rank what comes out."""
        count = noisy.shape[1]
        rows = np.ascontiguousarray(noisy.reshape(-1, *noisy.shape[2:]))
        final, remaining = rows, len(pairs)
        for step in ddim_steps(
            self._denoiser(count),
            rows,
            pairs,
            self._model.schedule,
            eta=self._settings.eta,
            clip=self._spec.diffused_bounds,
            draw_noise=lambda: self._draw(count).reshape(rows.shape),
        ):
            final = step.pred_original_sample
            remaining -= 1
            if remaining and self.out_of_time():
                break
        candidates, moved = self._timed("project", self._to_actions, final.reshape(noisy.shape))
        self._pool = np.concatenate([self._pool, candidates], axis=1)
        self._moved = np.concatenate([self._moved, moved], axis=1)
        self._rank()

    def _denoiser(self, count: int) -> Denoiser:
        """The guided denoiser for `count` candidates a problem, counted and timed."""

        def with_tokens(tokens: FloatArray | None) -> Denoiser:
            repeated = None if tokens is None else np.repeat(tokens, count, axis=0)

            def denoiser(sample: FloatArray, timestep: int) -> FloatArray:
                self._denoiser_evaluations += len(sample)
                output = self._timed("denoise", self._model.denoise, sample, timestep, repeated)
                return checked_output(output, sample)

            return denoiser

        if self._encoded is None:
            return with_tokens(None)
        conditional, unconditional = map(with_tokens, self._encoded)
        return classifier_free_guidance(conditional, unconditional, self._settings.guidance_scale)

    def _to_actions(self, diffused: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Actions `[B, K, L, A]` in the planner's units, and how far projection moved them."""
        decoded = self._spec.decode(diffused)
        if not self._settings.project:
            return decoded, np.zeros(decoded.shape[:2])
        projected = self._spec.project(decoded)
        return projected, np.abs(projected - decoded).max(axis=(2, 3))

    def _rank(self) -> None:
        """Ask for the cost of the candidates that have none yet."""
        if self._problem.cost is None:
            return
        unranked = self._pool[:, self._cost.shape[1] :]
        best_so_far = self._cost.min(axis=1, initial=np.inf)
        cost = self._timed("cost", checked_cost, self._problem.cost, unranked, best_so_far)
        self._cost_evaluations += cost.size
        self._cost = np.concatenate([self._cost, cost], axis=1)
        self._history.append(self._cost.min(axis=1))
