"""The runtime: plans with a DDIM denoiser on numpy and ONNX Runtime, nothing else."""

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.interface import (
    ActionOptimizer,
    CostFn,
    PlanConstraints,
    PlanningProblem,
    PlanResult,
)
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule

__all__ = [
    "ActionOptimizer",
    "ActionSpec",
    "CostFn",
    "DDIMOptimizer",
    "NoiseSchedule",
    "PlanConstraints",
    "PlanResult",
    "PlanningProblem",
    "__version__",
]

__version__ = "0.1.0"
