"""The runtime: plans with a DDIM denoiser on numpy and ONNX Runtime, nothing else."""

from vj2_ddim_plugin.interface import (
    ActionOptimizer,
    CostFn,
    PlanConstraints,
    PlanningProblem,
    PlanResult,
)
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec

__all__ = [
    "ActionOptimizer", "ActionSpec", "CostFn", "DDIMOptimizer", "NoiseSchedule", "PlanConstraints",
    "PlanResult", "PlanningProblem", "SearchSettings", "SessionSettings", "__version__",
]  # fmt: skip

__version__ = "0.1.0"
