"""What happens when a plan fails: a chain of answers, and an account of what went wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, ConstraintError, ContextError, VJ2DDIMError
from vj2_ddim_plugin.interface import ActionOptimizer, PlanningProblem, PlanResult
from vj2_ddim_plugin.planning.checks import checked_batch, checked_cost, padded_warm_start
from vj2_ddim_plugin.planning.constraints import Rules

__all__ = ["Fallback", "checked_chain", "plan_or_fall_back"]

Fallback = str | ActionOptimizer
"""`"previous"`, for the warm start as it is, or an optimizer, for example the host's own."""

logger = logging.getLogger(__name__)


def checked_chain(on_failure: Sequence[Fallback]) -> tuple[Fallback, ...]:
    """The chain, or `ConfigError` for a link that is neither `"previous"` nor an optimizer."""
    for link in [on_failure] if isinstance(on_failure, str) else on_failure:
        if link != "previous" and not callable(getattr(link, "optimize", None)):
            raise ConfigError(
                f"on_failure holds {link!r}; use 'previous' (the warm start) or an optimizer"
            )
    return (on_failure,) if isinstance(on_failure, str) else tuple(on_failure)


def plan_or_fall_back(
    plan: Callable[[PlanningProblem], PlanResult],
    problem: PlanningProblem,
    spec: ActionSpec,
    on_failure: Sequence[Fallback],
) -> PlanResult:
    """The plan, or the first answer of the chain; `failures` holds what went wrong before it.

    Raises:
        Exception: What the plan raised, when the chain is empty or every link of it failed too;
            its notes say how.
    """
    started = time.perf_counter()
    try:
        return plan(problem)
    except Exception as error:
        if not on_failure:
            raise
        failures = [_line("optimizer", error)]
        for link in on_failure:
            name = "previous" if isinstance(link, str) else "host"
            logger.warning("plan failed, asking %s: %s", name, failures[-1])
            try:
                return _answer(link, name, problem, spec, failures, started)
            except Exception as next_error:
                failures.append(_line(name, next_error))
        for line in failures[1:]:
            error.add_note(f"after that, on_failure failed too: {line}")
        raise


def _answer(
    link: Fallback,
    name: str,
    problem: PlanningProblem,
    spec: ActionSpec,
    failures: Sequence[str],
    started: float,
) -> PlanResult:
    """One link's answer, checked, with what went wrong before it and the time it all took."""
    if problem.deadline_s is not None:
        left = problem.deadline_s - (time.perf_counter() - started)
        problem = replace(problem, deadline_s=max(0.0, left))
    answer = _previous(problem, spec) if isinstance(link, str) else link.optimize(problem)
    if not isinstance(answer, PlanResult):
        raise ContextError(f"it returned a {type(answer).__name__}; expected a PlanResult")
    _check_answer(answer, problem, spec)
    seconds = {**answer.wall_time_s, "total": time.perf_counter() - started}
    told = (*failures, *answer.failures)
    return replace(answer, planned_by=name, failures=told, wall_time_s=seconds)


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
    cost, evaluations = np.full(batch, np.nan), 0
    failures: tuple[str, ...] = ()
    if problem.cost is not None:
        evaluations = batch
        try:
            cost = checked_cost(problem.cost, actions)[:, 0]
        except VJ2DDIMError as error:
            failures = (_line("cost of the previous plan", error),)
    return PlanResult(
        actions=actions[:, 0],
        cost=cost,
        history=cost[None] if problem.cost is not None else np.zeros((0, batch)),
        num_cost_evaluations=evaluations,
        num_denoiser_evaluations=0,
        wall_time_s={"total": time.perf_counter() - started},
        provider="none",
        stopped_because="failure",
        projection_distance=np.zeros(batch),
        failures=failures,
    )


def _check_answer(answer: PlanResult, problem: PlanningProblem, spec: ActionSpec) -> None:
    """Others' plans are checked as ours are: shape, finiteness, constraints."""
    actions = np.asarray(answer.actions)
    expected = (spec.length, spec.num_channels)
    if actions.shape[1:] != expected or not np.isfinite(actions).all():
        raise ContextError(
            f"it returned actions {actions.shape} with "
            f"{int(np.sum(~np.isfinite(actions)))} values that are NaN or infinite; expected "
            f"[B, {expected[0]}, {expected[1]}]"
        )
    batch = len(actions)
    if (wanted := checked_batch(problem, problem.context)) != batch:
        raise ContextError(f"it returned {batch} plans for {wanted} problems")
    padded_warm_start(actions, spec, batch)  # raises for a plan out of bounds
    if not Rules(problem, spec, batch).kept(actions[:, None]).all():
        raise ConstraintError("its plan does not keep the constraints")
