"""SHIM: moved to vj2_ddim_benchmark.planners.problem."""

from vj2_ddim_benchmark.planners.problem import Frames, MakeCost, plan, planning_problem

__all__ = ["Frames", "MakeCost", "plan", "planning_problem"]
