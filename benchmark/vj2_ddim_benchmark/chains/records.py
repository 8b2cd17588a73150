"""Raw results of chains: one line of JSON a planner and chain."""

from __future__ import annotations

from dataclasses import dataclass

from vj2_ddim_benchmark.protocol.records import TOLERANCE_MS, TOLERANCE_SHARE

__all__ = ["CHAINS_DIR", "ChainRecord"]

CHAINS_DIR = "chains"
"""Where the results of chains are, in the folder of a run."""


@dataclass(frozen=True)
class ChainRecord:
    """One chain and what came of it, with all that is needed to draw it again.

    Attributes:
        planner: Its name in the registry.
        problem: Index of the chain.
        length: Widgets that have to be touched.
        success: Whether the screen was in the goal state when the host stopped.
        stopped: Whether the host believed so; otherwise its gestures ran out.
        state_distance: How many gestures the screen was from the goal state in the end.
        budget_ms: The deadline of each plan, or None.
        wall_ms: Of each gesture, from the two pictures to the plan.
        cost_evaluations: Candidates whose cost the planner asked for, over all gestures.
        denoiser_evaluations: Rows that went through the denoiser, over all gestures.
        latent_distances: What the host saw before each gesture and after the last, in the units of
            the world model's cost.
        strokes: The gestures that were executed, see `strokes.py`.
        states: The screen's state after each gesture.
    """

    planner: str
    problem: int
    length: int
    success: bool
    stopped: bool
    state_distance: float
    budget_ms: float | None
    wall_ms: list[float]
    cost_evaluations: int
    denoiser_evaluations: int
    latent_distances: list[float]
    strokes: list[list[float]]
    states: list[list[int]]

    @property
    def num_gestures(self) -> int:
        """How many gestures were executed."""
        return len(self.strokes)

    @property
    def late(self) -> bool:
        """Whether any plan came after its budget and the tolerance for the clock's noise."""
        if self.budget_ms is None:
            return False
        limit = self.budget_ms + max(TOLERANCE_MS, TOLERANCE_SHARE * self.budget_ms)
        return any(wall_ms > limit for wall_ms in self.wall_ms)

    @property
    def solved(self) -> bool:
        """Whether it counts: a success without a late plan."""
        return self.success and not self.late
