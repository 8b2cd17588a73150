"""Raw results: one line of JSON a planner and problem, appended as they come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vj2_ddim_benchmark.protocol.json_lines import read_json_lines

__all__ = ["TOLERANCE_MS", "TOLERANCE_SHARE", "Record", "read_records"]

TOLERANCE_MS, TOLERANCE_SHARE = 2.0, 0.1
"""A plan is late if it is later than its budget by more than the larger of these."""


@dataclass(frozen=True)
class Record:
    """One plan and what came of it.

    Attributes:
        planner: Its name in the registry.
        problem: Index of the problem.
        kind: Kind of widget that had to be touched.
        success: Whether the plan put the screen into the goal state, be it in time or late.
        success_before_projection: The same for the plan before projection; None where unknown.
        final_cost: The world model's cost of the plan, asked for after the clock stopped.
        wall_ms: From the two pictures to the plan.
        cost_evaluations: Candidates whose cost the planner asked for.
        denoiser_evaluations: Rows that went through the denoiser.
        budget_ms: The deadline it was given, or None.
        stopped_because: `finished` or `deadline`.
        projection_distance: The largest change that projection made to the plan.
        provider: What ran.
    """

    planner: str
    problem: int
    kind: str
    success: bool
    success_before_projection: bool | None
    final_cost: float
    wall_ms: float
    cost_evaluations: int
    denoiser_evaluations: int
    budget_ms: float | None
    stopped_because: str
    projection_distance: float
    provider: str

    @property
    def late(self) -> bool:
        """Whether the plan came after its budget and the tolerance for the clock's noise."""
        if self.budget_ms is None:
            return False
        return self.wall_ms > self.budget_ms + max(TOLERANCE_MS, TOLERANCE_SHARE * self.budget_ms)

    @property
    def solved(self) -> bool:
        """Whether it counts: a success that was not late."""
        return self.success and not self.late


def read_records(path: Path, *, whole: bool = False) -> list[Record]:
    """The records of a file, see `read_json_lines`; none if it is missing.

    Args:
        path: The file.
        whole: Whether to refuse a last line cut short by a crash, which is left out otherwise.

    Raises:
        DataError: A line is not a record.
    """
    return read_json_lines(path, Record, whole=whole) if path.exists() else []
