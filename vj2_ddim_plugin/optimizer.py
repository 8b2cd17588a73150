"""`DDIMOptimizer`: sample candidates, rank them by the planner's cost, refine, return the best.

Where a plan fails, a chain of others may answer, with an account of what went wrong.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vj2_ddim_plugin.constraints import Rules
from vj2_ddim_plugin.errors import ConfigError, ConstraintError, ContextError, VJ2DDIMError
from vj2_ddim_plugin.interface import ActionOptimizer, PlanningProblem, PlanResult
from vj2_ddim_plugin.model import BundleModel, SamplerModel
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.planning.checks import (
    checked_array,
    checked_batch,
    checked_cost,
    padded_warm_start,
    require_problem,
)
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.planning.search import CandidateSearch
from vj2_ddim_plugin.settings import declared, of_kind, shown, with_changes
from vj2_ddim_plugin.spec import ActionSpec

if TYPE_CHECKING:  # Python 3.10 has it not
    from typing_extensions import Self

__all__ = ["DDIMOptimizer", "Fallback"]

Fallback = str | ActionOptimizer
"""`"previous"`, for the warm start as it is, or an optimizer, for example the host's own."""

logger = logging.getLogger(__name__)


class DDIMOptimizer(AbstractContextManager["DDIMOptimizer"]):
    """An `ActionOptimizer` that samples plans from a diffusion model.

    Every problem of a batch gets the same starting noise, drawn from the seed alone, so that a plan
    does not depend on what else is in its batch, and the same seed gives the same plan. (Under a
    deadline it also depends on the time there is.) One optimizer may plan in many threads at once,
    and can be pickled into worker processes.

    Args:
        model: The trained model; `from_bundle` loads one.
        settings: How to search; None for the defaults.
        on_failure: What to ask, in this order, when a plan fails: `"previous"` (the warm start) or
            an optimizer, for example the host's own. Empty: the error is raised.
        **changes: Fields of `SearchSettings` that differ from `settings`, for example
            `num_candidates=8`.

    Raises:
        ConfigError: A setting is unknown or out of range, guidance is asked of an unconditional
            model, or `num_ranked` of one without a ranker.
        ScheduleError: The steps do not fit the schedule.
    """

    _search: ClassVar[Callable[..., CandidateSearch]] = CandidateSearch

    def __init__(
        self,
        model: SamplerModel,
        settings: SearchSettings | None = None,
        *,
        on_failure: Sequence[Fallback] = (),
        **changes: Any,  # noqa: ANN401
    ) -> None:
        if not isinstance(getattr(model, "action_spec", None), ActionSpec):
            raise ConfigError(
                f"expected a SamplerModel; found {shown(model)}. DDIMOptimizer.from_bundle takes a "
                f"bundle's folder"
            )
        self.model, self.action_spec = model, model.action_spec
        self.settings = with_changes(of_kind(SearchSettings, settings), changes, ["on_failure"])
        self.settings.check_model(model)
        self.on_failure = _checked_chain(on_failure)
        self._pace = Pace()

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        settings: SearchSettings | None = None,
        *,
        session: SessionSettings | None = None,
        on_failure: Sequence[Fallback] = (),
        **changes: Any,  # noqa: ANN401
    ) -> "Self":
        """Load a bundle, warmed up by running its whole loop.

        Args:
            path: The bundle's folder.
            settings: How to search; None for the defaults.
            session: How to run the bundle's graphs; None for the defaults.
            on_failure: As for the constructor.
            **changes: Fields of `SearchSettings` or `SessionSettings` that differ from the two, for
                example `provider="cpu"` or `num_candidates=8`.

        Raises:
            ConfigError: A setting is unknown or out of range.
            BundleError: The bundle is incomplete, changed or inconsistent.
            ProviderError: The provider asked for is not the one that runs.
        """
        known = declared(SessionSettings)
        of_session = {name: changes.pop(name) for name in known if name in changes}
        search = with_changes(of_kind(SearchSettings, settings), changes, ["on_failure", *known])
        model = BundleModel(path, with_changes(of_kind(SessionSettings, session), of_session))
        optimizer = cls(model, search, on_failure=on_failure)
        optimizer.warm_up()
        return optimizer

    def warm_up(self, batch_size: int = 1) -> None:
        """Plan with and without a cost, refinement included: the first real plan is not slow then.

        Also measures how long a denoising step takes, which a deadline has to know.
        """
        spec, inputs = self.action_spec, self.model.condition.inputs
        context = {
            name: np.zeros((batch_size, *shape), np.float32) for name, shape in inputs.items()
        }
        refinements = 0 if self.settings.num_refinements == 0 else 1
        settings = replace(self.settings, num_refinements=refinements)
        short = replace(settings, num_refinements=0, num_inference_steps=1)
        released = np.zeros((batch_size, 1, spec.num_channels))
        first = np.clip(released, spec.low_array, spec.high_array) if spec.length > 1 else None
        for pace in (Pace(), self._pace):  # the first time is not what later ones take
            for cost in (None, lambda candidates: np.zeros(candidates.shape[:2])):
                problem = PlanningProblem(context, cost, batch_size=batch_size)
                self._search(self.model, settings, problem, pace).run()
                continued = replace(problem, frozen_action=first)
                self._search(self.model, short, continued, pace).run()
        self._pace.forget("cost")

    def optimize(self, problem: PlanningProblem) -> PlanResult:
        """The best candidate of each row; without a cost, the sample or the ranker's choice.

        Args:
            problem: See `PlanningProblem`. `init_action` becomes candidate 0, so with a cost the
                plan is never worse than it (than what the constraints leave of it; but see
                `num_robust`). `deadline_s` is kept by beginning nothing that is not expected to end
                in time: fewer steps, fewer candidates, no more rounds; where not even one candidate
                could be ranked, the plan is the warm start, or else the first sample, with cost
                NaN.

        Raises:
            ContextError: The problem does not fit this optimizer, its cost failed, or its
                constraints cannot be kept; unless `on_failure` has an answer.
            ProviderError: The execution provider failed while running, likewise.
        """
        started = time.perf_counter()
        require_problem(problem)
        try:
            return self._search(self.model, self.settings, problem, self._pace).run()
        except Exception as error:
            if not self.on_failure:
                raise
            failures = [_line("optimizer", error)]
            for link in self.on_failure:
                name = "previous" if isinstance(link, str) else "host"
                logger.warning("plan failed, asking %s: %s", name, failures[-1])
                try:
                    answer = _answer(link, problem, self.action_spec, started)
                except Exception as next_error:
                    failures.append(_line(name, next_error))
                    continue
                seconds = {**answer.wall_time_s, "total": time.perf_counter() - started}
                told = (*failures, *answer.failures)
                return replace(answer, planned_by=name, failures=told, wall_time_s=seconds)
            notes = [f"after that, on_failure failed too: {line}" for line in failures[1:]]
            error.__notes__ = [*getattr(error, "__notes__", ()), *notes]  # as `add_note` of 3.11
            raise

    def close(self) -> None:
        """Free the model; planning afterwards is an error. Closing twice is fine."""
        self.model.close()

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _checked_chain(on_failure: Sequence[Fallback]) -> tuple[Fallback, ...]:
    """The chain, or `ConfigError` for a link that is neither `"previous"` nor an optimizer."""
    several = isinstance(on_failure, Iterable) and not isinstance(on_failure, str)
    chain: tuple[Any, ...] = tuple(on_failure) if several else (on_failure,)
    for link in chain:
        previous = isinstance(link, str) and link == "previous"
        if not previous and not callable(getattr(link, "optimize", None)):
            raise ConfigError(
                f"on_failure holds {shown(link)}; use 'previous' (the warm start) or an optimizer"
            )
    return chain


def _answer(
    link: Fallback, problem: PlanningProblem, spec: ActionSpec, started: float
) -> PlanResult:
    """One link's answer, checked as our own plans are: shape, finiteness, constraints."""
    if problem.deadline_s is not None:
        left = problem.deadline_s - (time.perf_counter() - started)
        problem = replace(problem, deadline_s=max(0.0, left))
    answer = _previous(problem, spec) if isinstance(link, str) else link.optimize(problem)
    if not isinstance(answer, PlanResult):
        raise ContextError(f"it returned a {type(answer).__name__}; expected a PlanResult")
    actions = checked_array("actions", answer.actions)
    expected = (spec.length, spec.num_channels)
    if actions.shape[1:] != expected or not np.isfinite(actions).all():
        raise ContextError(
            f"it returned actions {actions.shape} with {int(np.sum(~np.isfinite(actions)))} values "
            f"that are NaN or infinite; expected [B, {expected[0]}, {expected[1]}]"
        )
    batch = len(actions)
    if (wanted := checked_batch(problem, problem.context)) != batch:
        raise ContextError(f"it returned {batch} plans for {wanted} problems")
    padded_warm_start(actions, spec, batch)  # raises for a plan out of bounds
    if not Rules(problem, spec, batch).kept(actions[:, None]).all():
        raise ConstraintError("its plan does not keep the constraints")
    return answer


def _line(name: str, error: Exception) -> str:
    return f"{name}: {type(error).__name__}: {error}"


def _previous(problem: PlanningProblem, spec: ActionSpec) -> PlanResult:
    """The warm start as the plan, with its cost where that can be had."""
    started = time.perf_counter()
    if problem.init_action is None:
        raise ContextError("there is no previous plan: the problem has no init_action")
    batch = len(np.atleast_1d(np.asarray(problem.init_action)))
    actions = padded_warm_start(problem.init_action, spec, batch)
    actions = Rules(problem, spec, batch).enforce(actions)
    cost, failures = np.full(batch, np.nan), tuple[str, ...]()
    if problem.cost is not None:
        try:
            cost = checked_cost(problem.cost, actions)[:, 0]
        except VJ2DDIMError as error:
            failures = (_line("cost of the previous plan", error),)
    return PlanResult(
        actions=actions[:, 0],
        cost=cost,
        history=cost[None] if problem.cost is not None else np.zeros((0, batch)),
        num_cost_evaluations=0 if problem.cost is None else batch,
        num_denoiser_evaluations=0,
        wall_time_s={"total": time.perf_counter() - started},
        provider="none",
        stopped_because="failure",
        projection_distance=np.zeros(batch),
        failures=failures,
    )
