"""SHIM: moved to vj2_ddim_benchmark.planners.description."""

from vj2_ddim_benchmark.planners.description import Planner as Entry
from vj2_ddim_benchmark.planners.description import PlannerAssets as BuildAssets
from vj2_ddim_benchmark.planners.description import SearchSpace
from vj2_ddim_benchmark.planners.description import TunedSettings as Settings

__all__ = ["BuildAssets", "Entry", "SearchSpace", "Settings"]
