"""One planning call: draw candidates, rank them, refine the best, and keep the accounts."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import ParamSpec, TypeVar

import numpy as np

from vj2_ddim_plugin import ddim
from vj2_ddim_plugin.constraints import Rules
from vj2_ddim_plugin.errors import ContextError
from vj2_ddim_plugin.gestures import diffused_bounds, encode, pressed, project
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.model import EncodedContext, SamplerModel, ranker_of
from vj2_ddim_plugin.planning import SearchSettings, checks
from vj2_ddim_plugin.planning.deadline import Deadline, Pace
from vj2_ddim_plugin.planning.ranking import (
    Candidates,
    Pool,
    Predict,
    Ranking,
    predicted_cost,
    projected,
)
from vj2_ddim_plugin.schedule import TimestepPairs
from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["CandidateSearch", "moved_copies"]

P = ParamSpec("P")
R = TypeVar("R")


class CandidateSearch:
    """The state of one `optimize` call."""

    def __init__(
        self, model: SamplerModel, settings: SearchSettings, problem: PlanningProblem, pace: Pace
    ) -> None:
        checks.require_problem(problem)
        self._clock = Deadline(checks.checked_deadline(problem), pace)
        self._model, self._settings, self._problem = model, settings, problem
        self._spec = model.action_spec
        self._rng = np.random.default_rng(checks.checked_seed(problem, settings.seed))
        self._seconds = dict.fromkeys(("condition", "denoise", "project"), 0.0)
        self._denoiser_evaluations = 0
        if settings.num_refinements is None and not self._clock.is_set:
            raise ContextError("num_refinements None needs a deadline_s to refine until; set one")
        context = checks.checked_context(problem, model.condition)
        self._batch = checks.checked_batch(problem, context)
        checks.require_room(self._spec, self._batch, settings.most_candidates(self._spec))
        self._rules = Rules(problem, self._spec, self._batch, project=settings.project)
        self._operations = (
            "inpaint" if self._rules.part_is_known else "denoise",
            "constrain" if self._rules.active else "project",
        )
        low, high = diffused_bounds(self._spec)
        self._clip = ddim.clip_to((low.astype(np.float32), high.astype(np.float32)))
        warm_start = checks.padded_warm_start(problem.init_action, self._spec, self._batch)
        self._warm_start = self._rules.enforce(warm_start)
        kept = self._rules.kept(self._warm_start)
        self._pool = Pool(Candidates.changed(warm_start, self._warm_start, kept))
        self._encoded = self._encode(context)
        predict = None if settings.num_ranked is None else self._predictor()
        self._ranking = Ranking(problem.cost, predict, settings.num_ranked, self._pool, self._clock)

    def run(self) -> PlanResult:
        """Sample, refine as often as asked and possible, and choose."""
        self._sample()
        limit, rounds = self._settings.num_refinements, 0
        while self._ranking.exists and rounds != limit and self._refine():
            rounds += 1
        if self._settings.num_robust:
            self._ranking.check_robustness(self._copies, self._settings.num_robust)
        return self._result()

    def _sample(self) -> None:
        """Candidates from pure noise and, beside a warm start, some from its neighbourhood."""
        ranked, settings = self._ranking.exists, self._settings
        wanted = settings.num_candidates if ranked else 1
        self._count, self._steps = self._clock.affordable(
            wanted,
            settings.steps(self._model.schedule),
            self._batch,
            names=self._operations,
            ranked=self._problem.cost is not None,
            num_ranked=settings.num_ranked,
        )
        near = int(settings.warm_start_share * self._count) if self._warm_start.shape[1] else 0
        pairs = settings.pairs(self._model.schedule, self._steps)
        temperature = np.float32(settings.temperature)
        self._denoise_into_pool(temperature * self._draw(self._count - near), pairs)
        if near:
            self._denoise_near(np.repeat(self._warm_start, near, axis=1))
        if not ranked and not self._pool.has_plans():  # the constraints refused the only sample
            self._denoise_into_pool(temperature * self._draw(settings.num_candidates), pairs)
        self._ranking.rank(self._count)

    def _refine(self) -> bool:
        """One more round around the best quarter, if there is time for it; whether there was."""
        rows, schedule = self._batch * self._count, self._model.schedule
        step, after = self._operations
        steps = len(self._settings.middle_pairs(schedule, self._steps))
        if self._pool.num_ranked == 0 or not self._clock.allows(
            (step, rows, steps), (after, rows, 1), *self._ranking.next_operations(rows)
        ):
            return False
        self._denoise_near(self._pool.elites(self._count))
        self._ranking.rank(self._count)
        return True

    def _copies(self, actions: FloatArray) -> FloatArray:
        """Copies of candidates, moved a little; what is known of the plan stays where it is."""
        copies = moved_copies(actions, self._spec, self._settings.robust_radius)
        flat = copies.reshape(self._batch, -1, *copies.shape[3:])
        return self._rules.enforce(flat, avoid=False).reshape(copies.shape)

    def _result(self) -> PlanResult:
        """The best of the pool, one a row."""
        ranking = self._ranking
        (best, cost), seconds = ranking.choice(), {**self._seconds, **ranking.seconds}
        chosen = self._pool.all.taken(best[:, None])
        return PlanResult(
            actions=np.ascontiguousarray(chosen.actions[:, 0]),
            cost=cost,
            history=np.array(ranking.history).reshape(-1, self._batch),
            num_cost_evaluations=ranking.num_cost_evaluations,
            num_denoiser_evaluations=self._denoiser_evaluations,
            wall_time_s={**seconds, "total": time.perf_counter() - self._clock.started},
            provider=self._model.provider,
            stopped_because="deadline" if self._clock.mattered else "finished",
            projection_distance=chosen.moved[:, 0],
        )

    def _encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        """What the denoiser is told of the context, worked out once."""
        return checks.checked_condition(self._timed("condition", self._model.encode, context))

    def _predictor(self) -> Predict | None:
        """The predicted cost of candidates, where the model has a ranker."""
        ranker, encoded = ranker_of(self._model), self._encoded
        if ranker is None or encoded is None:
            return None
        return lambda actions: predicted_cost(ranker, actions, encoded.condition, self._spec)

    def _timed(self, phase: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        begun = time.perf_counter()
        value = function(*args, **kwargs)
        self._seconds[phase] += time.perf_counter() - begun
        return value

    def _draw(self, count: int) -> FloatArray:
        """Standard normal `[B, count, M, C]`, equal for all B problems."""
        noise = self._rng.standard_normal((count, *self._spec.diffused_shape), np.float32)
        return np.broadcast_to(noise, (self._batch, *noise.shape))

    def _denoise_near(self, actions: FloatArray) -> None:
        """Re-noise `[B, K, L, A]` to a middle timestep, and add what that denoises to."""
        schedule, settings = self._model.schedule, self._settings
        original = encode(project(actions, self._spec), self._spec)
        noise = self._draw(actions.shape[1])
        noisy = ddim.add_noise(original, noise, settings.middle(schedule), schedule)
        self._denoise_into_pool(noisy, settings.middle_pairs(schedule, self._steps))

    def _denoise_into_pool(self, noisy: FloatArray, pairs: TimestepPairs) -> None:
        """Denoise `[B, K, M, C]`, decode, project, and add what comes out."""
        count, rows = noisy.shape[1], noisy.shape[0] * noisy.shape[1]
        sample = np.ascontiguousarray(noisy.reshape(rows, *noisy.shape[2:]))
        final, begun, (name, after), done = sample, time.perf_counter(), self._operations, 0
        for num, step in self._steps_from(sample, count, pairs):
            final, now, done = step.pred_original_sample, time.perf_counter(), done + num
            self._clock.record(name, rows, (now - begun) / num)
            begun = now
            if done < len(pairs) and not self._clock.allows((name, rows, 1), (after, rows, 1)):
                break
        diffused = final.reshape(noisy.shape)
        self._pool.add(self._timed("project", self._to_candidates, diffused))
        self._clock.record(after, rows, time.perf_counter() - begun)

    def _steps_from(
        self, sample: FloatArray, count: int, pairs: TimestepPairs
    ) -> Iterator[tuple[int, ddim.Step]]:
        """DDIM from a sample, so many steps at once; inpainting where part of the plan is known."""
        known = self._rules.part_is_known

        def with_known_part(original: FloatArray) -> FloatArray:
            return self._timed("project", self._with_known_part, original)

        for step in ddim.ddim_steps(
            self._denoiser(count),
            sample,
            pairs,
            self._model.schedule,
            eta=self._settings.eta,
            correct=with_known_part if known else self._clip,
            draw_noise=lambda: self._draw(count).reshape(sample.shape),
            num_resamples=ddim.NUM_RESAMPLES if known else 1,
        ):
            yield 1, step

    def _denoiser(self, count: int) -> ddim.Denoiser:
        """The guided denoiser for `count` candidates a problem, counted and timed."""

        def with_tokens(tokens: FloatArray | None) -> ddim.Denoiser:
            repeated = tokens if tokens is None or count == 1 else np.repeat(tokens, count, axis=0)

            def denoiser(sample: FloatArray, timestep: int) -> FloatArray:
                output = self._timed("denoise", self._model.denoise, sample, timestep, repeated)
                self._denoiser_evaluations += len(sample)
                return checks.checked_output(output, sample)

            return denoiser

        if self._encoded is None:
            return with_tokens(None)
        conditional, unconditional = map(with_tokens, self._encoded)
        return ddim.classifier_free_guidance(
            conditional, unconditional, self._settings.guidance_scale
        )

    def _with_known_part(self, diffused: FloatArray) -> FloatArray:
        """Predicted x0 `[rows, M, C]` with the part of the plan that is known put into it."""
        clipped = self._clip(diffused)
        shaped = clipped.reshape(self._batch, -1, *clipped.shape[1:])
        decoded = projected(shaped, self._spec, self._settings.project)[1]
        actions = self._rules.enforce(decoded, avoid=False)
        held = self._rules.encodable(actions).reshape(-1)
        if held.any():
            clipped[held] = encode(actions.reshape(-1, *actions.shape[2:])[held], self._spec)
        return clipped

    def _to_candidates(self, diffused: FloatArray) -> Candidates:
        """Candidates, projected and brought to keep the rules."""
        decoded, actions = projected(diffused, self._spec, self._settings.project)
        actions = self._rules.enforce(actions)
        return Candidates.changed(decoded, actions, self._rules.kept(actions))


def moved_copies(actions: FloatArray, spec: ActionSpec, radius: float) -> FloatArray:
    """Every plan moved as a whole along each channel, back and forth, and kept in bounds.

    A learned model is not exact about edges: of two plans that it likes alike, the one it still
    likes when it is moved is the safer. The minimum of the worst cost in a neighbourhood is that of
    Bertsimas, Nohadani & Teo 2010, "Robust Optimization for Unconstrained Simulation-Based
    Problems", eq. 2. A press stays, and only what is pressed is moved.
    """
    axes = spec.coordinate_indices
    low, high = spec.low_array, spec.high_array
    shifts = np.zeros((2 * len(axes), spec.num_channels), actions.dtype)
    shifts[np.arange(len(shifts)), np.repeat(axes, 2)] = np.repeat(radius * (high - low)[axes], 2)
    shifts[1::2] *= -1.0
    copies = actions[..., None, :, :]
    moved = np.clip(copies + shifts[:, None, :], low, high).astype(actions.dtype)
    if spec.press_channel is None:
        return moved
    return np.where(pressed(copies, spec)[..., None], moved, copies)
