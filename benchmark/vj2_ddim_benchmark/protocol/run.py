"""The race: every planner on the same problems, one plan at a time, taking turns.

A planner sees two pictures. It never sees the screen's state; success is judged after its clock has
stopped. Planners take turns on every problem, and who comes first rotates, so that noise of the
machine hits all alike. Before the race each makes its first plan, timed apart (`cold.json`), and
one more to warm up, on problems of another split.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.planners.host import Frames, MakeCost, plan, planning_problem
from vj2_ddim_benchmark.protocol.competitors import Competitor
from vj2_ddim_benchmark.protocol.records import Record, RecordLog
from vj2_ddim_benchmark.world.problems import Problems, one_gesture_problems
from vj2_ddim_benchmark.world_model.cost import LatentCost
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray, PlanResult

__all__ = ["COLD", "RESULTS", "Race", "problem_seed", "read_cold"]

RESULTS, COLD = "results.jsonl", "cold.json"
NUM_WARM_UP = 2

Progress = Callable[[str, int, int], None]


def problem_seed(seed: int, problem: int) -> int:
    """The seed every planner gets for a problem."""
    return int(np.random.SeedSequence([seed, problem]).generate_state(1)[0])


def read_cold(out: Path) -> dict[str, dict[str, float]]:
    """By planner: `build_ms`, and `first_plan_ms` of a fresh optimizer."""
    path = out / COLD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@dataclass(frozen=True)
class Race:
    """What is raced on.

    Attributes:
        world_model: Encodes pictures and makes the cost, for all planners.
        problems: What to solve.
        seed: Seed of the planners' randomness, see `problem_seed`.
        budget_ms: Deadline of each plan, or None.
        make_cost: The cost, from the world model and the two latents.
    """

    world_model: Any
    problems: Problems
    seed: int = 0
    budget_ms: float | None = None
    make_cost: MakeCost = LatentCost

    def run(
        self, out: Path, competitors: Sequence[Competitor], progress: Progress | None = None
    ) -> list[Record]:
        """Race; results that are already in the folder are kept, and only the others made.

        Args:
            out: The folder of the results, created if missing.
            competitors: Who races.
            progress: Called with the phase, the plans made and their number.

        Returns:
            The records of these competitors on these problems, old and new.

        Raises:
            ConfigError: Another run is writing into the folder.
            DataError: The folder holds results that cannot be read.
        """
        report = progress or (lambda phase, done, total: None)
        names = {competitor.name for competitor in competitors}
        with RecordLog(out / RESULTS) as log:
            done = {(record.planner, record.problem) for record in log.records}
            todo = [
                (problem, competitor)
                for problem in range(len(self.problems))
                for competitor in _in_turn(competitors, problem)
                if (competitor.name, problem) not in done
            ]
            self._warm_up(out, [c for c in competitors if any(c is other for _, other in todo)])
            for count, (problem, competitor) in enumerate(todo, start=1):
                log.append(self.attempt(competitor, problem))
                report("plan", count, len(todo))
            return [
                record
                for record in log.records
                if record.planner in names and record.problem < len(self.problems)
            ]

    def frames(self, problem: int) -> tuple[Frames, Frames]:
        """The two pictures of a problem, uint8 `[1, H, W, 3]` each: all that planners see."""
        start, goal = self.problems.start, self.problems.goal
        return start.select(problem).render(), goal.select(problem).render()

    def plan(self, optimizer: ActionOptimizer, problem: int, *, with_cost: bool) -> PlanResult:
        """One plan; the same every time, since the problem has its seed."""
        seed = problem_seed(self.seed, problem)
        return self._plan(optimizer, *self.frames(problem), with_cost, seed)

    def attempt(self, competitor: Competitor, problem: int) -> Record:
        """One plan, timed, then judged."""
        start, goal = self.problems.start.select(problem), self.problems.goal.select(problem)
        result = self.plan(competitor.optimizer, problem, with_cost=competitor.with_cost)
        raw = self._before_projection(competitor, result, problem)
        return Record(
            planner=competitor.name,
            problem=problem,
            kind=str(self.problems.kind[problem]),
            success=bool(start.execute(result.actions).matches(goal.state)[0]),
            success_before_projection=(
                None if raw is None else bool(start.execute(raw).matches(goal.state)[0])
            ),
            final_cost=self._cost(problem, result.actions),
            wall_ms=1e3 * result.wall_time_s["total"],
            cost_evaluations=result.num_cost_evaluations,
            denoiser_evaluations=result.num_denoiser_evaluations,
            budget_ms=self.budget_ms,
            stopped_because=result.stopped_because,
            projection_distance=float(result.projection_distance[0]),
            provider=result.provider,
        )

    def _plan(
        self,
        optimizer: ActionOptimizer,
        start: Frames,
        goal: Frames,
        with_cost: bool,
        seed: int,
    ) -> PlanResult:
        return plan(
            optimizer,
            self.world_model,
            start,
            goal,
            with_cost=with_cost,
            deadline_s=None if self.budget_ms is None else self.budget_ms / 1e3,
            seed=seed,
            make_cost=self.make_cost,
        )

    def _before_projection(
        self, competitor: Competitor, result: PlanResult, problem: int
    ) -> FloatArray | None:
        """The plan without projection, `[1, L, A]`, from the result or from the twin."""
        actions: FloatArray | None = getattr(result, "unprojected_actions", None)
        if actions is None and competitor.unprojected is not None:
            twin = self.plan(competitor.unprojected, problem, with_cost=competitor.with_cost)
            actions = twin.actions
        return actions

    def _cost(self, problem: int, actions: FloatArray) -> float:
        """The cost of a plan `[1, L, A]`, for planners that were given it and for the others."""
        frames = self.frames(problem)
        context = planning_problem(self.world_model, *frames, with_cost=False).context
        cost = self.make_cost(self.world_model, context["state"], context["goal"])
        return float(cost(actions[:, None])[0, 0])

    def _warm_up(self, out: Path, competitors: Sequence[Competitor]) -> None:
        """Two plans each, on screens of the training split; the first is the cold one."""
        size = self.problems.start.size
        problems = one_gesture_problems(NUM_WARM_UP, split="train", seed=self.seed, size=size)
        start, goal = problems.start.render(), problems.goal.render()
        self._use_shared_parts(start, goal, problems.actions)
        cold = read_cold(out)
        for competitor in competitors:
            first_plan, _ = (
                self._plan(
                    competitor.optimizer, start[[i]], goal[[i]], competitor.with_cost, seed=i
                )
                for i in range(NUM_WARM_UP)
            )
            cold.setdefault(
                competitor.name,
                {
                    "build_ms": competitor.build_ms,
                    "first_plan_ms": 1e3 * first_plan.wall_time_s["total"],
                },
            )
        write_json(out / COLD, cold)

    def _use_shared_parts(self, start: Frames, goal: Frames, actions: FloatArray) -> None:
        """The first use of the world model and of torch.optim is slow; nobody pays for it."""
        shared = planning_problem(self.world_model, start, goal, make_cost=self.make_cost)
        if shared.cost is not None:
            shared.cost(actions[:, None])
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).zero_grad()


def _in_turn(competitors: Sequence[Competitor], problem: int) -> list[Competitor]:
    """The competitors in the order of this problem: who comes first rotates."""
    first = problem % len(competitors)
    return [*competitors[first:], *competitors[:first]]
